//! Key file: detects whether other users can read a file that has a secret.
//!
//! Links are followed, as the volumes of Kubernetes need. A group of this process may read the file,
//! as with `fsGroup`.
//!
//! Not here: the permissions of the directories above, which may also exclude others.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, getgroups};

/// A sentence for a file that other users can read. None: they cannot.
#[must_use]
pub fn exposure(flag: &str, path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let (mode, group) = (metadata.mode(), metadata.gid());
    let is_own = || {
        let groups = getgroups().unwrap_or_default();
        groups.into_iter().chain([getegid()]).any(|own| own.as_raw() == group)
    };
    let reader = if mode & 0o004 != 0 {
        "every user of this machine"
    } else if mode & 0o040 != 0 && !is_own() {
        "a group that this process is not in"
    } else {
        return None;
    };
    Some(format!(
        "{flag} {} can be read by {reader} (mode {:04o}): restrict it with `chmod 600`",
        path.display(),
        mode & 0o7777
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn exposed_file_is_reported_also_behind_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("key"), dir.path().join("link"));
        fs::write(&file, "key").expect("written");
        symlink(&file, &link).expect("linked");
        for (mode, is_exposed) in
            [(0o600, false), (0o400, false), (0o640, false), (0o604, true), (0o644, true)]
        {
            fs::set_permissions(&file, Permissions::from_mode(mode)).expect("set");
            for path in [&file, &link] {
                let sentence = exposure("--key-file", path);
                assert_eq!(sentence.is_some(), is_exposed, "{mode:o} {sentence:?}");
            }
        }
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
        // Only root can give a file to a group that it is not in.
        if chown(&file, None, Some(54_321)).is_ok() {
            let sentence = exposure("--tls-key", &file).expect("exposed");
            assert!(
                sentence.contains("a group that this process is not in (mode 0640)"),
                "{sentence}"
            );
        }
        assert_eq!(exposure("--key-file", Path::new("/dev/null")), None);
        assert_eq!(exposure("--key-file", &dir.path().join("none")), None);
    }
}
