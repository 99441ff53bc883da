use std::collections::BTreeSet;
use std::sync::Arc;

use super::{CatalogErrors, CatalogFile};
use crate::policy::catalog::Catalog;
use crate::policy::catalog::issuer::{
    Algorithm, Audiences, ClaimValue, Companies, Issuer, KeySource, MAX_ENTRIES, MAX_ISSUERS,
    PartySource, UserSource,
};
use crate::policy::id::{CompanyId, CredentialId};

const NAME: &str = "https://id.example.org/";
/// The key of RFC 8037 appendix A.2.
const KEY: &str = "{ kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo }";

/// A catalog of two audiences and an issuer, some of whose keys have another value. A value that is
/// empty takes the key out. Keys that the entry lacks follow from line 9.
fn with(keys: &[(&str, &str)]) -> String {
    with_audiences("{ public: { aud: [\"https://api\"] }, webhooks: }", keys)
}

fn with_audiences(audiences: &str, keys: &[(&str, &str)]) -> String {
    let mut entry = vec![
        ("jwks_url", "https://id.example.org/jwks.json"),
        ("algorithms", "[RS256]"),
        ("company", "{ claim: tid }"),
        ("companies", "[acme]"),
    ];
    for (key, value) in keys {
        match entry.iter_mut().find(|(own, _)| own == key) {
            Some(own) => own.1 = value,
            None => entry.push((key, value)),
        }
    }
    let mut yaml = format!("audiences: {audiences}\nscopes: {{ a: , b: }}\nissuers:\n  {NAME}:\n");
    for (key, value) in entry {
        match value {
            "" => yaml.push('\n'),
            _ => yaml.push_str(&format!("    {key}: {value}\n")),
        }
    }
    yaml
}

fn problems(yaml: &str) -> Vec<String> {
    match CatalogFile::parse(yaml) {
        Ok(_) => vec![],
        Err(CatalogErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn issuer(yaml: &str) -> Issuer {
    let file = CatalogFile::parse(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    file.issuers.get(NAME).expect("an issuer").as_ref().clone()
}

fn company(id: &str) -> CompanyId {
    CompanyId::parse(id).expect("an id")
}

fn texts<'a>(all: impl IntoIterator<Item = &'a Box<str>>) -> Vec<&'a str> {
    all.into_iter().map(|text| &**text).collect()
}

#[test]
fn t8_an_entry_has_defaults_for_all_that_does_not_widen_it() {
    let issuer = issuer(&with(&[]));
    assert_eq!(&*issuer.name, NAME);
    assert_eq!(issuer.keys, KeySource::Url("https://id.example.org/jwks.json".into()));
    assert_eq!(issuer.algorithms, BTreeSet::from([Algorithm::Rs256]));
    let PartySource::Claim { claims, prefix } = &issuer.company else { panic!("{issuer:?}") };
    assert_eq!((texts(claims), &**prefix), (vec!["tid"], ""));
    assert_eq!(issuer.companies, Companies::Only(BTreeSet::from([company("acme")])));
    let PartySource::Claim { claims, prefix } = &issuer.credential else { panic!("{issuer:?}") };
    assert_eq!((texts(claims), &**prefix), (vec!["client_id", "azp"], ""));
    let UserSource::Claim { claim, prefix, unless } = &issuer.user else { panic!("{issuer:?}") };
    assert_eq!((&**claim, &**prefix, unless.len()), ("sub", "", 0));
    assert_eq!(texts(&issuer.scope_claims), ["scope", "scp", "scopes", "permissions"]);
    assert!(issuer.aliases.is_empty() && issuer.require.is_empty());
    assert!(issuer.audiences.is_none() && issuer.without_aud.is_none() && issuer.types.is_none());
    let seconds = [issuer.clock_skew, issuer.refresh, issuer.refetch_after, issuer.usable_for];
    assert_eq!(seconds, [30, 300, 10, 86_400]);
    assert!(!issuer.confirmed_by_caller);
}

#[test]
fn t8_every_key_of_an_entry_is_read() {
    let issuer = issuer(&with(&[
        ("aliases", "[https://id.example.org, urn:id]"),
        ("jwks_url", ""),
        ("jwks_file", "keys.json"),
        ("algorithms", "[ES256, Ed25519, ES256]"),
        ("audiences", "{ \"https://api.example.org\": public, \"urn:hooks\": webhooks }"),
        ("require", "{ token_use: access, ver: 2, ok: true, text: \"2\" }"),
        ("without_aud", "public"),
        ("company", "{ claim: [tid, org_id] }"),
        ("companies", "any"),
        ("credential", "{ claim: [cid, azp], prefix: \"y:\" }"),
        ("user", "{ claim: uid, prefix: \"u|\", unless: { gty: client-credentials } }"),
        ("scope_claims", "[roles]"),
        ("types", "[AT+JWT, application/JWT]"),
        ("clock_skew", "0s"),
        ("refresh", "24h"),
        ("refetch_after", "1h"),
        ("usable_for", "30d"),
        ("confirmation", "caller"),
    ]));
    assert_eq!(texts(&issuer.aliases), ["https://id.example.org", "urn:id"]);
    assert_eq!(issuer.keys, KeySource::File("keys.json".into()));
    assert_eq!(issuer.algorithms, BTreeSet::from([Algorithm::Es256, Algorithm::EdDsa]));
    let Some(Audiences::Map(map)) = &issuer.audiences else { panic!("{issuer:?}") };
    let map: Vec<_> = map.iter().map(|(aud, name)| (&**aud, name.as_str())).collect();
    assert_eq!(map, [("https://api.example.org", "public"), ("urn:hooks", "webhooks")]);
    let values: Vec<_> = issuer.require.iter().map(|(key, value)| (&**key, value)).collect();
    let text = |text: &str| ClaimValue::String(text.into());
    assert_eq!(
        values,
        [
            ("ok", &ClaimValue::Boolean(true)),
            ("text", &text("2")),
            ("token_use", &text("access")),
            ("ver", &ClaimValue::Number(2)),
        ]
    );
    assert_eq!(issuer.without_aud.as_ref().map(|name| name.as_str()), Some("public"));
    let PartySource::Claim { claims, .. } = &issuer.company else { panic!("{issuer:?}") };
    assert_eq!(texts(claims), ["tid", "org_id"]);
    assert_eq!(issuer.companies, Companies::Any);
    let PartySource::Claim { claims, prefix } = &issuer.credential else { panic!("{issuer:?}") };
    assert_eq!((texts(claims), &**prefix), (vec!["cid", "azp"], "y:"));
    let UserSource::Claim { claim, prefix, unless } = &issuer.user else { panic!("{issuer:?}") };
    assert_eq!((&**claim, &**prefix), ("uid", "u|"));
    assert_eq!(unless.get("gty"), Some(&text("client-credentials")));
    assert_eq!(texts(&issuer.scope_claims), ["roles"]);
    assert_eq!(texts(issuer.types.iter().flatten()), ["at+jwt", "jwt"]);
    let seconds = [issuer.clock_skew, issuer.refresh, issuer.refetch_after, issuer.usable_for];
    assert_eq!(seconds, [0, 86_400, 3_600, 2_592_000]);
    assert!(issuer.confirmed_by_caller);
}

#[test]
fn t8_the_company_the_credential_and_the_user_have_their_sources() {
    let is_acme = issuer(&with(&[("company", "{ is: acme }"), ("companies", "")]));
    assert_eq!(is_acme.company, PartySource::Is(company("acme")));
    assert_eq!(is_acme.companies, Companies::Only(BTreeSet::from([company("acme")])));
    assert!(is_acme.companies.has(&company("acme")) && !is_acme.companies.has(&company("globex")));
    let request = issuer(&with(&[("company", "request"), ("credential", "request")]));
    assert_eq!((request.company, request.credential), (PartySource::Request, PartySource::Request));
    let is = issuer(&with(&[("credential", "{ is: gateway }"), ("user", "none")]));
    let gateway = CredentialId::parse("gateway").expect("an id");
    assert_eq!((is.credential, is.user), (PartySource::Is(gateway), UserSource::None));
    // The other keys of a map have their defaults.
    let prefixed = issuer(&with(&[("credential", "{ prefix: \"y:\" }"), ("user", "{}")]));
    let PartySource::Claim { claims, prefix } = &prefixed.credential else { panic!() };
    assert_eq!((texts(claims), &**prefix), (vec!["client_id", "azp"], "y:"));
    assert_eq!(prefixed.user, issuer(&with(&[])).user);
}

#[test]
fn t8_keys_in_the_catalog_are_read() {
    let inline = |keys: &str| with(&[("jwks_url", ""), ("jwks", &format!("{{ keys: [{keys}] }}"))]);
    let KeySource::Inline(keys) = issuer(&inline(KEY)).keys else { panic!("no keys") };
    assert_eq!(keys.iter().len(), 1);
    // The key of RFC 8037 has this thumbprint (appendix A.3).
    let thumbprint = keys.iter().next().expect("a key").thumbprint.to_string();
    assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let catalog = Catalog::empty().replaced_by(&inline(&format!("{KEY}, {{ kty: oct, k: c2Vj }}")));
    let warnings = catalog.expect("a catalog").issuer_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("`keys[1]` is symmetric"), "{warnings:?}");
    // A catalog in force stays in force, whatever this version can use of it.
    let none = inline("{ kty: oct, k: c2Vj }");
    assert!(CatalogFile::parse(&none).is_err() && CatalogFile::parse_stored(&none).is_ok());
}

#[test]
fn t8_every_refusal_has_its_line_and_column() {
    const COLUMN_OF_NAME: &str = "line 4, column 3: ";
    let long = "x".repeat(513);
    let claim = "x".repeat(257);
    let entries = vec!["x"; MAX_ENTRIES + 1];
    let numbered: Vec<_> = (0..=MAX_ENTRIES).map(|n| format!("c{n}: 1")).collect();
    let (many, numbered) = (format!("[{}]", entries.join(", ")), numbered.join(", "));
    let too_long_for_one = "x".repeat(65);
    let rows: &[(&[(&str, &str)], &str)] = &[
        // The keys.
        (
            &[("jwks_url", "")],
            &format!("{COLUMN_OF_NAME}the issuer has no keys: write exactly one"),
        ),
        (&[("jwks_file", "a")], "line 9, column 16: the issuer has its keys from several sources"),
        (&[("jwks", "{ keys: [] }")], "line 9, column 11: the issuer has its keys from several"),
        (
            &[("jwks_url", "http://id.example.org/")],
            "line 5, column 15: `http://id.example.org/` is not `https`",
        ),
        (
            &[("jwks_url", ""), ("jwks_file", "../a")],
            "line 9, column 16: `../a` is not the bare name",
        ),
        (&[("jwks_url", ""), ("jwks_file", "..")], "line 9, column 16: `..` is not the bare name"),
        (
            &[("jwks_url", ""), ("jwks_file", "a/b")],
            "line 9, column 16: `a/b` is not the bare name",
        ),
        (&[("jwks_url", ""), ("jwks_file", "\"\"")], "line 9, column 16: `` is not the bare name"),
        (
            &[("jwks_url", ""), ("jwks", "{}")],
            "line 9, column 11: `jwks` must have exactly one member `keys`",
        ),
        (&[("jwks_url", ""), ("jwks", "[]")], "line 9, column 11: `jwks` must be a map"),
        (&[("jwks_url", ""), ("jwks", "{ keys: [] }")], "line 9, column 11: `jwks` has no keys"),
        (
            &[("jwks_url", ""), ("jwks", "{ keys: [{ kty: oct, k: c2Vj }] }")],
            "line 9, column 11: `jwks` has no key that verifies signatures: `keys[0]` is symmetric",
        ),
        // The algorithms.
        (&[("algorithms", "")], &format!("{COLUMN_OF_NAME}`algorithms` is missing")),
        (&[("algorithms", "[]")], "line 6, column 17: `algorithms` is an empty list"),
        (
            &[("algorithms", "[RS256, none]")],
            "line 6, column 25: `none` is no signature, so any client could write",
        ),
        (
            &[("algorithms", "[HS256]")],
            "line 6, column 18: `HS256` is verified with the key that signs",
        ),
        (
            &[("algorithms", "[ES512]")],
            "line 6, column 18: `ES512` is not an algorithm that scopegate verifies: RS256,",
        ),
        (&[("algorithms", "[rs256]")], "line 6, column 18: `rs256` is not an algorithm"),
        (&[("algorithms", "RS256")], "line 6, column 17: "),
        // The audiences.
        (
            &[("audiences", "{ \"urn:a\": moon }")],
            "line 9, column 27: `moon` is not an audience of this catalog",
        ),
        (&[("audiences", "{ \"\": public }")], "line 9, column 18: `` is empty"),
        (
            &[("audiences", "{ 1: public, \"1\": public }")],
            "line 9, column 29: `1` is a duplicate key",
        ),
        (&[("audiences", "{}")], "line 9, column 16: `audiences` must map each `aud` value"),
        (
            &[("audiences", "[\"urn:a\"]")],
            "line 9, column 16: `audiences` must map each `aud` value",
        ),
        (&[("audiences", "public")], "line 9, column 16: `audiences` must be a map"),
        (&[("audiences", "~")], "line 9, column 16: `audiences` must be a map"),
        (
            &[("without_aud", "moon")],
            "line 9, column 18: `moon` is not an audience of this catalog",
        ),
        // The claims that are required.
        (&[("require", "{ a: [x] }")], "line 9, column 16: invalid "),
        (&[("require", "{ a: 1.5 }")], "line 9, column 16: invalid "),
        (&[("require", "{ a: ~ }")], "line 9, column 16: invalid "),
        (&[("require", "{ a: 9223372036854775808 }")], "line 9, column 16: invalid "),
        (&[("require", "{ \"\": x }")], "line 9, column 16: `` is empty"),
        (&[("require", &format!("{{ a: {long} }}"))], "line 9, column 19: "),
        (
            &[("require", &format!("{{ {numbered} }}"))],
            "line 9, column 518: `require` has 65 entries, the limit is 64",
        ),
        (&[("require", "~")], "line 9, column 14: "),
        // The company.
        (&[("company", ""), ("companies", "")], &format!("{COLUMN_OF_NAME}`company` is missing")),
        (
            &[("company", "{}")],
            "line 7, column 14: `company` must be `{ claim: C }`, `{ is: ID }` or `request`",
        ),
        (&[("company", "{ claim: a, is: b }")], "line 7, column 14: `company` must be"),
        (&[("company", "acme")], "line 7, column 14: `company` must be"),
        (&[("company", "[acme]")], "line 7, column 14: `company` must be"),
        (&[("company", "~")], "line 7, column 14: `company` must be"),
        (
            &[("company", "{ claim: [] }")],
            "line 7, column 23: `claim` must name one or more claims",
        ),
        (&[("company", "{ claim: \"\" }")], "line 7, column 23: `` is empty"),
        (&[("company", &format!("{{ claim: {claim} }}"))], "line 7, column 23: "),
        (
            &[("company", &format!("{{ claim: {many} }}"))],
            "line 7, column 216: `claim` has 65 entries",
        ),
        (
            &[("company", "{ claim: a, prefix: b }")],
            "line 7, column 34: `prefix` is for `credential` and `user`",
        ),
        (
            &[("company", "{ is: \"a b\" }"), ("companies", "")],
            "line 7, column 20: `a b` has the character ' '",
        ),
        (&[("company", "{ is: acme }")], "line 8, column 16: `company` is `acme` alone"),
        (&[("companies", "")], &format!("{COLUMN_OF_NAME}`companies` is missing")),
        (
            &[("company", "request"), ("companies", "")],
            &format!("{COLUMN_OF_NAME}`companies` is missing"),
        ),
        (
            &[("companies", "[]")],
            "line 8, column 16: `companies` must be a list of one or more companies, or `any`",
        ),
        (&[("companies", "all")], "line 8, column 16: `companies` must be"),
        (&[("companies", "{ a: b }")], "line 8, column 16: `companies` must be"),
        (&[("companies", "[\"a b\"]")], "line 8, column 17: `a b` has the character ' '"),
        // The credential and the user.
        (&[("credential", "{ claim: a, is: b }")], "line 9, column 17: `credential` must be"),
        (&[("credential", "none")], "line 9, column 17: `credential` must be"),
        (
            &[("credential", "{ is: a, prefix: b }")],
            "line 9, column 34: `prefix` goes before the value of a claim",
        ),
        (
            &[("credential", "{ prefix: \"a b\" }")],
            "line 9, column 27: `a b` has the character ' '",
        ),
        (&[("credential", &format!("{{ prefix: {too_long_for_one} }}"))], "line 9, column 27: "),
        (&[("credential", "{ claims: a }")], "line 9, column 19: unknown field `claims`"),
        (&[("user", "request")], "line 9, column 11: `user` must be `{ claim: C }`, or `none`"),
        (&[("user", "~")], "line 9, column 11: `user` must be"),
        (&[("user", "{ claim: [a] }")], "line 9, column 20: "),
        (&[("user", "{ unless: { a: [b] } }")], "line 9, column 23: invalid "),
        (&[("user", "{ prefix: \"a/b\" }")], "line 9, column 21: `a/b` has the character '/'"),
        // The rest.
        (
            &[("scope_claims", "[]")],
            "line 9, column 19: `scope_claims` must name one or more claims",
        ),
        (&[("scope_claims", "[\"\"]")], "line 9, column 20: `` is empty"),
        (&[("types", "[]")], "line 9, column 12: `types` must be a list of one or more values"),
        (&[("types", "JWT")], "line 9, column 12: `types` must be a list of one or more values"),
        (&[("clock_skew", "301s")], "line 9, column 17: `301s` is not between `0s` and `5m`"),
        (&[("refresh", "0s")], "line 9, column 14: `0s` is not between `1s` and `24h`"),
        (&[("refresh", "25h")], "line 9, column 14: `25h` is not between `1s` and `24h`"),
        (&[("refetch_after", "61m")], "line 9, column 20: `61m` is not between `1s` and `1h`"),
        (&[("usable_for", "31d")], "line 9, column 17: `31d` is not between `1s` and `30d`"),
        (&[("usable_for", "5")], "line 9, column 17: `5` is not a duration"),
        (&[("confirmation", "none")], "line 9, column 19: "),
        (&[("jwks_uri", "x")], "line 9, column 5: unknown field `jwks_uri`"),
        (
            &[("aliases", &format!("[{NAME}]"))],
            "line 9, column 15: `https://id.example.org/` stands for the issuer `https://id.example.org/` already",
        ),
        (&[("aliases", "[a, a]")], "line 9, column 18: `a` stands for the issuer"),
        (&[("aliases", "[\"\"]")], "line 9, column 15: `` is empty"),
        (&[("aliases", &format!("[{long}]"))], "line 9, column 15: "),
        (&[("aliases", &many)], "line 9, column 207: `aliases` has 65 entries, the limit is 64"),
    ];
    for (keys, said) in rows {
        let found = problems(&with(keys));
        assert_eq!(found.len(), 1, "{said}: {found:?}");
        assert!(found[0].starts_with(said), "{said}: {found:?}");
    }
    // All problems of an entry are reported, in the order of the file.
    let all = problems(&with(&[
        ("jwks_url", "ftp://x/"),
        ("algorithms", "[none]"),
        ("company", "acme"),
        ("companies", "[]"),
        ("refresh", "x"),
    ]));
    assert_eq!(all.len(), 5, "{all:?}");
}

#[test]
fn t8_a_catalog_without_audiences_lists_the_aud_values() {
    let Some(Audiences::List(list)) =
        issuer(&with_audiences("{}", &[("audiences", "[b, a, b]")])).audiences
    else {
        panic!("no list")
    };
    assert_eq!(texts(&list), ["a", "b"]);
    for (keys, said) in [
        (&[][..], "line 4, column 3: `audiences` is missing: the catalog declares no audience"),
        (&[("audiences", "[]")], "line 9, column 16: `audiences` must be a list of one or more"),
        (&[("audiences", "{ a: b }")], "line 9, column 16: `audiences` must be a list"),
        (&[("audiences", "[\"\"]")], "line 9, column 17: `` is empty"),
        (
            &[("audiences", "[a]"), ("without_aud", "b")],
            "line 10, column 18: `b` is not an audience",
        ),
    ] {
        let found = problems(&with_audiences("{}", keys));
        assert_eq!(found.len(), 1, "{said}: {found:?}");
        assert!(found[0].starts_with(said), "{said}: {found:?}");
    }
    // An issuer that never writes `aud`.
    let never = issuer(&with(&[("audiences", "{}"), ("without_aud", "public")]));
    assert_eq!(never.audiences, Some(Audiences::Map([].into())));
}

#[test]
fn t8_a_name_or_an_alias_stands_for_one_issuer() {
    let entry = |more: &str| {
        format!("{{ jwks_file: a, algorithms: [RS256], company: {{ is: acme }}{more} }}\n")
    };
    let file = |first: &str, second: &str, aliases: [&str; 2]| {
        let [one, two] = aliases.map(|aliases| entry(&format!(", aliases: [{aliases}]")));
        format!("audiences: {{ p: }}\nscopes: {{}}\nissuers:\n  {first}: {one}  {second}: {two}")
    };
    for (yaml, said) in [
        (file("x", "y", ["y", ""]), "line 5, column 3: `y` stands for the issuer `x` already"),
        (file("x", "y", ["", "x"]), "line 5, column 76: `x` stands for the issuer `x` already"),
        (file("x", "y", ["z", "z"]), "line 5, column 76: `z` stands for the issuer `x` already"),
        (file("1", "\"1\"", ["", ""]), "line 5, column 3: `1` stands for the issuer `1` already"),
        (file("\"\"", "y", ["", ""]), "line 4, column 3: `` is empty"),
        (file("\"a\\nb\"", "y", ["", ""]), "line 4, column 3: `a\\nb` has the control character"),
        (file("x", "y", ["", ""]).replace("x: {", "x: #{"), "line 4, column 4: "),
    ] {
        let found = problems(&yaml);
        assert_eq!(found.len(), 1, "{yaml}: {found:?}");
        assert!(found[0].starts_with(said), "{said}: {found:?}");
    }
    let yaml = file("x", "y", ["x/, X", "y/"]);
    let catalog = Catalog::empty().replaced_by(&yaml).expect("a catalog");
    let name = |iss: &str| catalog.issuer(iss).map(|issuer| issuer.name.to_string());
    for (iss, owner) in [("x", "x"), ("x/", "x"), ("X", "x"), ("y", "y"), ("y/", "y")] {
        assert_eq!(name(iss).as_deref(), Some(owner), "{iss}");
    }
    assert_eq!((name("Y"), name(""), name("x/ ")), (None, None, None), "byte for byte");
    let names: Vec<_> = catalog.issuers().map(|issuer| &*issuer.name).collect();
    assert_eq!(names, ["x", "y"], "each once");
    assert!(Arc::ptr_eq(catalog.issuer("x").expect("x"), catalog.issuer("X").expect("X")));
    // A catalog that replaces it shares the issuers whose entries are the same.
    let again = catalog.replaced_by(&format!("# again\n{yaml}")).expect("a catalog");
    let shares = |next: &Catalog, spelling: &str| {
        let both = catalog.issuer(spelling).zip(next.issuer(spelling)).expect("both");
        assert_eq!(Arc::ptr_eq(both.0, both.1), both.0 == both.1, "{spelling}");
        both.0 == both.1
    };
    assert!(["x", "x/", "X", "y", "y/"].iter().all(|spelling| shares(&again, spelling)));
    let aliased = again.replaced_by(&file("x", "y", ["x/", "y/"])).expect("a catalog");
    assert_eq!(["x", "x/", "y"].map(|spelling| shares(&aliased, spelling)), [false, false, true]);
}

#[test]
fn t8_a_catalog_has_at_most_256_issuers() {
    let file = |count: usize| {
        let entries = (0..count).map(|n| {
            format!("  i{n}: {{ jwks_file: a, algorithms: [RS256], company: {{ is: acme }} }}\n")
        });
        format!("audiences: {{ p: }}\nscopes: {{}}\nissuers:\n{}", entries.collect::<String>())
    };
    assert_eq!(problems(&file(MAX_ISSUERS)), [""; 0]);
    let above = problems(&file(MAX_ISSUERS + 1));
    assert_eq!(above, ["line 260, column 3: the file has 257 issuers, the limit is 256"]);
}

#[test]
fn t9_a_jwks_url_is_https_or_http_on_a_loopback_address() {
    let read = |url: &str| problems(&with(&[("jwks_url", &format!("{url:?}"))]));
    for url in [
        "https://id.example.org",
        "https://id.example.org/a/b?x=y&z",
        "https://ID.example.org:8443/",
        "HTTPS://id.example.org/",
        "https://10.0.0.1/keys",
        "https://[2001:db8::1]:443/keys",
        "https://localhost/keys",
        "http://127.0.0.1/keys",
        "http://127.9.8.7:8080/keys",
        "http://[::1]/keys",
        "http://[::1]:1/keys",
    ] {
        assert_eq!(read(url), [""; 0], "{url}");
    }
    let long = format!("https://id.example.org/{}", "x".repeat(2048));
    for (url, said) in [
        ("http://localhost/keys", "is not `https`"),
        ("http://127.1/keys", "is not `https`"),
        ("http://0x7f000001/keys", "is not `https`"),
        ("http://128.0.0.1/keys", "is not `https`"),
        ("http://127.0.0.1.example.org/keys", "is not `https`"),
        ("http://0.0.0.0/keys", "is not `https`"),
        ("http://[::]/keys", "is not `https`"),
        ("http://[::ffff:127.0.0.1]/keys", "is not `https`"),
        ("http://[::1/keys", "is not a URL"),
        ("ftp://127.0.0.1/keys", "is not `https`"),
        ("file:///etc/keys", "is not a URL"),
        ("http://127.0.0.1@example.org/", "has user info"),
        ("https://user:secret@id.example.org/", "has user info"),
        ("https://@id.example.org/", "has user info"),
        ("https://id.example.org/#keys", "has a fragment"),
        ("https://id.example.org/a b", "is not a URL"),
        ("https://id.example.org/\u{e9}", "is not a URL"),
        ("https://id.ex\u{e4}mple.org/", "is not a URL"),
        ("https://id.example.org:0/", "has a port"),
        ("https://id.example.org:/", "has a port"),
        ("https://id.example.org:65536/", "has a port"),
        ("https://id.example.org:+1/", "has a port"),
        ("https://id..example.org/", "is not a URL"),
        ("https://id%2eexample.org/", "is not a URL"),
        ("https://*.example.org/", "is not a URL"),
        ("https:///keys", "is not a URL"),
        ("https:id.example.org", "is not a URL"),
        ("id.example.org/keys", "is not a URL"),
        ("/keys", "is not a URL"),
        ("", "is not a URL"),
        (long.as_str(), "is too long"),
    ] {
        let found = read(url);
        assert_eq!(found.len(), 1, "{url}: {found:?}");
        let place = "line 5, column 15: ";
        assert!(found[0].starts_with(place) && found[0].contains(said), "{url}: {found:?}");
    }
}

#[test]
fn t8_powerful_issuers_are_warned_of() {
    let warnings = |entries: &[(&str, &str)]| {
        let entries = entries.iter().map(|(name, keys)| {
            format!("  {name}: {{ jwks_file: a, algorithms: [RS256], {keys} }}\n")
        });
        let yaml =
            format!("audiences: {{ p: }}\nscopes: {{}}\nissuers:\n{}", entries.collect::<String>());
        let catalog = Catalog::empty().replaced_by(&yaml).expect("a catalog");
        catalog.issuer_warnings()
    };
    let of = |entries: &[(&str, &str)], parts: &[&str]| {
        let found = warnings(entries);
        assert_eq!(found.len(), parts.len(), "{entries:?}: {found:?}");
        for (sentence, part) in found.iter().zip(parts) {
            assert!(sentence.contains(part), "{part}: {found:?}");
        }
    };
    let (acme, globex) = ("company: { is: acme }", "company: { is: globex }");
    of(&[("x", acme)], &[]);
    of(&[("x", acme), ("y", globex)], &[]);
    of(
        &[("x", acme), ("y", acme)],
        &["`x` and `y` can both name the same credentials of company `acme`"],
    );
    let any = "company: { claim: [tid, org] }, companies: any";
    of(
        &[("x", any)],
        &[
            "the issuer `x` may speak for any company: an account that can write the claim `tid` or `org`",
        ],
    );
    of(
        &[("x", "company: request, companies: any")],
        &["its tokens count in every company that the request names"],
    );
    of(
        &[("x", any), ("y", acme)],
        &["any company", "`x` and `y` can both name the same credentials of company `acme`"],
    );
    of(
        &[("x", any), ("y", any)],
        &["`x`", "`y`", "`x` and `y` can both name the same credentials of any company"],
    );
    // Two prefixes keep them apart, for the credential and for the user, unless one begins with the
    // other: the issuer with the shorter one can name what begins with the longer one.
    let prefixed = |credential: &str, user: &str| {
        format!("{acme}, credential: {{ prefix: '{credential}' }}, user: {{ prefix: '{user}' }}")
    };
    for (one, two, part) in [
        (("x:", "x:"), ("y:", "y:"), None),
        (("x:", ""), ("y:", "y:"), Some("the same users of company `acme`")),
        (("x:", "y:"), ("y:", "y:"), Some("the same users of company `acme`")),
        (("", ""), ("y:", "y:"), Some("the same credentials of company `acme`: give both a")),
        (("y:", "y:"), ("y:", "y:"), Some("the same credentials")),
        (("y", "x:"), ("y:", "y:"), Some("the same credentials")),
        (("y:", "y:"), ("y:z", "x:"), Some("the same credentials")),
        (("y:a", "x:"), ("y:b", "y:"), None),
    ] {
        let (one, two) = (prefixed(one.0, one.1), prefixed(two.0, two.1));
        of(&[("x", &one), ("y", &two)], part.as_slice());
    }
    let no_user = "company: { is: acme }, credential: request, user: none";
    of(&[("x", acme), ("y", no_user)], &[]);
    // A fixed credential is one that a claim of another issuer can name.
    let fixed =
        |id: &str| format!("company: {{ is: acme }}, credential: {{ is: '{id}' }}, user: none");
    let claimed = |prefix: &str| format!("{acme}, credential: {{ prefix: '{prefix}' }}");
    for (one, two, part) in [
        (
            fixed("hr"),
            claimed(""),
            Some("the same credential `hr` of company `acme`: give the one"),
        ),
        (claimed("h"), fixed("hr"), Some("the same credential `hr` of company `acme`")),
        (fixed("hr"), claimed("y:"), None),
        (fixed("hr"), fixed("hr"), Some("the same credential `hr` of company `acme`: name two")),
        (fixed("hr"), fixed("bi"), None),
        (fixed("hr"), no_user.to_owned(), None),
    ] {
        of(&[("x", &one), ("y", &two)], part.as_slice());
    }
    // The first sentences, and how many more there are: 30 issuers are 435 pairs.
    let names: Vec<_> = (0..30).map(|n| format!("i{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), acme)).collect();
    let found = warnings(&many);
    assert_eq!(
        (found.len(), found[20].as_str()),
        (21, "there are 415 more warnings about issuers")
    );
}

#[test]
fn t18_keys_that_get_too_old_between_two_fetches_are_warned_of() {
    for (refresh, usable_for, is_short) in [
        ("5m", "24h", false),
        ("100s", "110s", false),
        ("100s", "109s", true),
        ("5m", "1m", true),
        ("24h", "24h", true),
    ] {
        let keys = [("refresh", refresh), ("usable_for", usable_for)];
        let warnings = |more: &[(&str, &str)]| {
            let yaml = with(&[&keys[..], more].concat());
            Catalog::empty().replaced_by(&yaml).expect("a catalog").issuer_warnings()
        };
        let found = warnings(&[]);
        assert_eq!(found.len(), usize::from(is_short), "{refresh} {usable_for}: {found:?}");
        assert!(
            found.iter().all(|one| one.contains("make `usable_for` several times")),
            "{found:?}"
        );
        assert_eq!(warnings(&[("jwks_url", ""), ("jwks_file", "a")]), [""; 0], "a file");
    }
}

#[test]
fn t18_issuers_whose_keys_are_fetched_anew_are_warned_of() {
    let catalog = |count: usize, more: &str| {
        let entries = (0..count).map(|n| {
            format!(
                "  i{n}: {{ jwks_url: 'https://i{n}/', algorithms: [RS256], company: {{ is: c{n} }}\
                 {more} }}\n"
            )
        });
        format!("audiences: {{ p: }}\nscopes: {{}}\nissuers:\n{}", entries.collect::<String>())
    };
    let read = |yaml: &str| Catalog::empty().replaced_by(yaml).expect("a catalog");
    let before = read(&catalog(5, ""));
    let warning = |yaml: &str| read(yaml).refetch_warning(&before);
    assert_eq!(warning(&catalog(5, "")), None, "the same");
    assert_eq!(warning(&catalog(4, "")), None, "one was removed");
    assert_eq!(warning(&catalog(6, "")), None, "a new one had no keys before");
    assert_eq!(
        warning(&catalog(1, ", clock_skew: 1s")).as_deref(),
        Some(
            "the keys of a changed issuer are fetched anew, and until then its tokens are denied \
             with status 503: `i0`"
        )
    );
    let all = warning(&catalog(6, ", clock_skew: 1s")).expect("a warning");
    assert!(
        all.contains("of 5 changed issuers are") && all.ends_with("`i0`, `i1`, `i2` and 2 more")
    );
    // An alias that becomes the name is another entry.
    let renamed = "issuers: { i0: { aliases: [j0], jwks_url: 'https://i0/', algorithms: [RS256], \
                   company: { is: acme } } }\naudiences: { p: }\nscopes: {}\n";
    let before = read(renamed);
    let after = read(&renamed.replace("j0", "k0").replace("i0:", "j0:"));
    assert!(after.refetch_warning(&before).is_some_and(|warning| warning.ends_with("`j0`")));
    let file = renamed.replace("jwks_url: 'https://i0/'", "jwks_file: a");
    assert_eq!(read(&file).refetch_warning(&before), None, "a file is read at once");
}

#[test]
fn t8_a_difference_names_the_issuers_and_the_terms_that_change() {
    let yaml = |issuers: &str| format!("audiences: {{ p: }}\nscopes: {{}}\nissuers: {issuers}\n");
    let acme = "jwks_file: a, company: { is: acme }";
    let old = yaml(&format!(
        "{{ gone: {{ {acme}, algorithms: [RS256] }}, same: {{ {acme}, algorithms: [RS256] }}, \
         x: {{ {acme}, algorithms: [RS256] }} }}"
    ));
    let new = yaml(&format!(
        "{{ new: {{ {acme}, algorithms: [RS256], user: none }}, \
         same: {{ algorithms: [RS256, RS256], {acme}, refresh: 300s }}, \
         x: {{ jwks: {{ keys: [{KEY}] }}, algorithms: [RS256, EdDSA], company: {{ claim: tid }}, \
         companies: [acme, globex], require: {{ use: access }} }} }}"
    ));
    let old = Catalog::empty().replaced_by(&old).expect("a catalog");
    let new = old.replaced_by(&new).expect("a catalog");
    let difference = new.difference(&old);
    assert_eq!(difference.changed_issuers, ["gone", "new", "x"]);
    assert_eq!(difference.removed_issuers, ["gone"]);
    assert!(new.difference(&new).is_empty());
    let fields: Vec<_> =
        difference.fields().into_iter().map(|f| (f.field, f.before, f.after)).collect();
    assert_eq!(fields, [("issuers".into(), "\"gone\"".into(), "\"new, x\"".into())]);
    let details = new.details(&old);
    let told: Vec<_> =
        details.issuers.iter().map(|part| (&*part.name, &*part.before, &*part.after)).collect();
    let entry = |user: &str| {
        format!(
            "jwks_file a, algorithm RS256, aud as in the catalog, company is acme, speaks for acme, \
             credential claim client_id or azp, {user}, scope_claims scope scp scopes permissions, \
             types as usual, clock_skew 30s, refresh 300s, refetch_after 10s, usable_for 86400s"
        )
    };
    assert_eq!(
        told,
        [
            ("gone", entry("user claim sub").as_str(), ""),
            ("new", "", entry("no user").as_str()),
            (
                "x",
                "jwks_file a, company is acme",
                "key kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k, algorithm EdDSA, \
                 requires use = \"access\", company claim tid, speaks for globex",
            ),
        ]
    );
}

#[test]
fn t8_an_alias_that_is_gone_is_a_removal() {
    let read = |before: &Catalog, issuers: &str| {
        let yaml = format!("audiences: {{ p: }}\nscopes: {{}}\nissuers: {{ {issuers} }}\n");
        before.replaced_by(&yaml).expect("a catalog")
    };
    let entry = "jwks_file: a, company: { is: acme }, algorithms: [RS256]";
    let old = read(&Catalog::empty(), &format!("x: {{ {entry}, aliases: [x/, urn:x] }}"));
    let removed = |issuers: &str| read(&old, issuers).difference(&old).removed_issuers;
    assert_eq!(removed(&format!("x: {{ {entry}, aliases: [x/] }}")), ["urn:x"]);
    assert_eq!(removed(&format!("y: {{ {entry} }}")), ["urn:x", "x", "x/"]);
    // A name that becomes an alias is an issuer less, and an alias that becomes a name is not.
    assert_eq!(removed(&format!("x/: {{ {entry}, aliases: [x, urn:x] }}")), ["x"]);
    let new = read(&old, &format!("x: {{ {entry}, aliases: [x/] }}"));
    let fields = new.difference(&old).fields();
    let fields: Vec<_> = fields.iter().map(|f| (&*f.field, &*f.before, &*f.after)).collect();
    assert_eq!(fields, [("issuers", "\"urn:x\"", "\"x\"")]);
}

#[test]
fn t25_what_is_issued_for_an_audience_is_a_part_of_its_difference() {
    let old = "scopes: { act: , a: }\naudiences: { p: { token_ttl: 30m, exchange: act } }\n";
    let old = Catalog::empty().replaced_by(old).expect("a catalog");
    // A scope that has another name is the same scope.
    let renamed = "scopes: { do: { renamed_from: act }, a: }\n\
                   audiences: { p: { token_ttl: 30m, exchange: do } }\n";
    let renamed = old.replaced_by(renamed).expect("a catalog");
    assert_eq!(renamed.difference(&old).changed_audiences, [""; 0]);
    let new = "scopes: { act: , a: }\naudiences: { p: { hosts: [H] } }\n";
    let new = old.replaced_by(new).expect("a catalog");
    assert_eq!(new.difference(&old).changed_audiences, ["p"]);
    let details = new.details(&old);
    let part = details.audiences.first().expect("a part");
    assert_eq!(part.before, "token_ttl 1800s, hosts none, exchange act");
    assert_eq!(part.after, "token_ttl 3600s, hosts h, exchange none");
}

#[test]
fn t25_an_audience_says_how_long_its_tokens_live() {
    let read = |ttl: &str| {
        let yaml = format!("scopes: {{}}\naudiences: {{ p: {{ {ttl} }} }}");
        let file = CatalogFile::parse(&yaml).map_err(|error| error.to_string())?;
        Ok::<_, String>(file.audiences["p"].token_ttl)
    };
    assert_eq!(read(""), Ok(3_600));
    for (text, seconds) in [("1s", 1), ("90m", 5_400), ("24h", 86_400), ("1d", 86_400)] {
        assert_eq!(read(&format!("token_ttl: {text}")), Ok(seconds), "{text}");
    }
    for (wrong, said) in [
        ("0s", "is not between `1s` and `24h`"),
        ("25h", "is not between `1s` and `24h`"),
        ("4294967295d", "is not between `1s` and `24h`"),
        ("60", "is not a duration"),
    ] {
        let error = read(&format!("token_ttl: {wrong}")).expect_err(wrong);
        assert_eq!(error.split_once(": ").expect("a place").0, "line 2, column 30", "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn t31_a_host_is_of_one_audience() {
    let read = |p: &str, q: &str| {
        let yaml =
            format!("scopes: {{}}\naudiences:\n  p: {{ hosts: [{p}] }}\n  q: {{ hosts: [{q}] }}\n");
        Catalog::empty().replaced_by(&yaml).map_err(|error| error.to_string())
    };
    let catalog = read("Public.API.example.org, 127.0.0.1, \"[::1]\"", "hooks_1.example.org");
    let catalog = catalog.expect("a catalog");
    let of = |host: &str| catalog.audience_by_host(host).map(|name| name.as_str());
    assert_eq!(of("public.api.example.org"), Some("p"));
    assert_eq!(of("[::1]"), Some("p"));
    assert_eq!(of("hooks_1.example.org"), Some("q"));
    assert_eq!((of("example.org"), of("")), (None, None));
    let many: Vec<_> = (0..33).map(|n| format!("h{n}")).collect();
    for (p, q, said) in [
        ("a.b", "A.B", "line 4, column 16: `a.b` is in the `hosts` of `p` already"),
        ("a, A", "", "line 3, column 19: `a` is in the `hosts` of `p` already"),
        ("\"a:443\"", "", "line 3, column 16: `a:443` is not a host"),
        ("\"https://a\"", "", "line 3, column 16: `https://a` is not a host"),
        ("a/b", "", "line 3, column 16: `a/b` is not a host"),
        ("a.", "", "line 3, column 16: `a.` is not a host"),
        ("a..b", "", "line 3, column 16: `a..b` is not a host"),
        ("\"*.a\"", "", "line 3, column 16: `*.a` is not a host"),
        ("b\u{fc}cher.example", "", "line 3, column 16: "),
        ("\"[::1]:80\"", "", "line 3, column 16: `[::1]:80` is not a host"),
        ("\"\"", "", "line 3, column 16: `` is not a host"),
        (&many.join(", "), "", "line 3, column 166: `hosts` has 33 entries, the limit is 32"),
    ] {
        let error = read(p, q).expect_err(said);
        assert!(error.starts_with(said), "{said}: {error}");
    }
}

#[test]
fn t33_an_exchange_names_a_scope() {
    let read = |scope: &str| {
        let yaml =
            format!("audiences: {{ p: {{ exchange: {scope} }}, q: }}\nscopes: {{ act: , a: }}\n");
        CatalogFile::parse(&yaml).map_err(|error| error.to_string())
    };
    let file = read("act").expect("a catalog");
    assert_eq!(file.audiences["p"].exchange.as_ref().map(|scope| scope.as_str()), Some("act"));
    assert_eq!(file.audiences["q"].exchange, None);
    let error = read("moon").expect_err("no scope");
    assert_eq!(error, "line 1, column 29: `moon` is not a scope of this catalog");
}
