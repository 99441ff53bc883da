//! Own issuer: the name of this server as an issuer of tokens, and the directory of its keys, as the
//! flags say (T24).
//!
//! Not here: the flags; see [`super::args`]. The listener of --oauth is in [`crate::transport`].

use std::path::PathBuf;

use super::StartupError;
use super::args::ServeArgs;
use crate::authority::own_issuer::OwnIssuer;
use crate::policy::catalog::file::check_own_issuer;
use crate::policy::redirect_uri::RedirectUri;

/// The directory of the signing keys in the data directory.
const SIGNING_KEYS: &str = "signing-keys";

/// The issuer, if the server is one.
///
/// # Errors
/// The flags contradict each other, or the name is not allowed.
pub(super) fn own_issuer(args: &ServeArgs) -> Result<Option<OwnIssuer>, StartupError> {
    let Some(name) = name(args).map_err(StartupError::Config)? else { return Ok(None) };
    Ok(Some(OwnIssuer::new(&name, signing_keys(args))))
}

/// Reads the URL of the platform's page (RFC 6749 section 3.1).
pub(super) fn authorize_url(text: &str) -> Result<String, String> {
    // What holds for a redirect URI holds for it, too, but for private schemes.
    RedirectUri::parse(text)?;
    match text.split_once(':').unwrap_or_default() {
        (scheme, _) if scheme.contains('.') => Err("is not an https URL".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn signing_keys(args: &ServeArgs) -> PathBuf {
    args.signing_keys.clone().unwrap_or_else(|| args.data_dir.join(SIGNING_KEYS))
}

fn name(args: &ServeArgs) -> Result<Option<String>, String> {
    if let Some(issuer) = &args.issuer {
        check_own_issuer(issuer).map_err(|why| format!("--issuer `{issuer}` {why}"))?;
    }
    let Some(address) = args.oauth else { return Ok(args.issuer.clone()) };
    let is_loopback = address.ip().to_canonical().is_loopback();
    let Some(issuer) = &args.issuer else {
        if !is_loopback {
            return Err(format!(
                "--oauth {address} is not a loopback address: give its URL for clients by --issuer"
            ));
        }
        if address.port() == 0 {
            return Err(format!("--oauth {address} has any port: give a port, or --issuer"));
        }
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        return Ok(Some(format!("{scheme}://{address}")));
    };
    if !is_loopback && args.tls_cert.is_none() && !issuer.starts_with("https://") {
        return Err(format!(
            "--oauth {address} is not a loopback address and has no TLS: give --tls-cert, or an \
             https URL by --issuer if a proxy ends TLS"
        ));
    }
    Ok(Some(issuer.clone()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn named(line: &str) -> Result<Option<String>, String> {
        let words = ["serve"].into_iter().chain(line.split_whitespace());
        name(&Flags::try_parse_from(words).expect("flags").args)
    }

    #[test]
    fn t24_the_issuer_is_named_or_the_loopback_address_of_the_listener() {
        const TLS: &str = "--tls-cert c.pem --tls-key k.pem";
        for (line, expected) in [
            ("", None),
            ("--issuer https://id.example.org", Some("https://id.example.org")),
            ("--issuer https://id.example.org:8443", Some("https://id.example.org:8443")),
            ("--issuer http://127.0.0.1:50053", Some("http://127.0.0.1:50053")),
            ("--oauth 127.0.0.1:50053", Some("http://127.0.0.1:50053")),
            ("--oauth [::1]:50053", Some("http://[::1]:50053")),
            (&format!("--oauth 127.0.0.1:50053 {TLS}"), Some("https://127.0.0.1:50053")),
            ("--oauth 127.0.0.1:0 --issuer http://127.0.0.1:1", Some("http://127.0.0.1:1")),
            (
                "--oauth 0.0.0.0:50053 --issuer https://id.example.org",
                Some("https://id.example.org"),
            ),
            (
                &format!("--oauth 0.0.0.0:50053 --issuer http://127.0.0.1:1 {TLS}"),
                Some("http://127.0.0.1:1"),
            ),
        ] {
            assert_eq!(named(line), Ok(expected.map(ToOwned::to_owned)), "{line}");
        }
    }

    #[test]
    fn t24_another_issuer_or_address_is_refused() {
        for line in [
            "--issuer id.example.org",
            "--issuer http://id.example.org",
            "--issuer http://localhost:1",
            "--issuer https://id.example.org/",
            "--issuer https://id.example.org/tenant",
            "--issuer https://id.example.org?x=1",
            "--issuer https://id.example.org#x",
            "--issuer https://user@id.example.org",
            "--oauth 0.0.0.0:50053",
            "--oauth 127.0.0.1:0",
            "--oauth 0.0.0.0:50053 --issuer http://127.0.0.1:1",
        ] {
            let why = named(line).expect_err(line);
            assert!(why.starts_with("--oauth") || why.starts_with("--issuer"), "{why}");
        }
    }
}
