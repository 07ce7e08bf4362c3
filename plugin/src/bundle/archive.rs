//! The archive on disk: whole or not there.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};
use tempfile::{Builder as FileBuilder, NamedTempFile};

/// An archive that is being written. It lies beside its final place, for its owner alone, and is removed unless it is
/// finished.
pub struct Archive {
    tar: Builder<GzEncoder<NamedTempFile>>,
    to: PathBuf,
    folder: String,
    now: u64,
}

impl Archive {
    /// Begins an archive. All of it is in `folder`.
    ///
    /// # Errors
    /// If no file can be created where the archive shall be.
    pub fn begin(to: &Path, folder: &str) -> io::Result<Self> {
        let place = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Such a file is readable by its owner alone.
        let file = FileBuilder::new().prefix(".beatkeeper-").suffix(".tmp").tempfile_in(place)?;
        let tar = Builder::new(GzEncoder::new(file, Compression::default()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self { tar, to: to.to_owned(), folder: folder.to_owned(), now })
    }

    /// Adds a file. Parts of the path that come from the cluster have been through [`safe`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        self.tar.append_data(&mut header, format!("{}/{path}", self.folder), contents)
    }

    /// Puts the archive in its place. Returns its size in bytes.
    ///
    /// # Errors
    /// If it cannot be written. Then it is not there.
    pub fn finish(self) -> io::Result<u64> {
        let mut file = self.tar.into_inner()?.finish()?;
        file.flush()?;
        file.as_file().sync_all()?;
        let size = file.as_file().metadata()?.len();
        file.persist(self.to)?;
        Ok(size)
    }
}

/// A name from the cluster as a part of a path: without what leads to another folder.
pub fn safe(name: &str) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() || "-_.".contains(it) { it } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.trim_matches('.').is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn an_archive_is_there_when_it_is_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("bundle.tar.gz");
        let mut archive = Archive::begin(&to, "bundle").unwrap();
        archive.add("a.txt", b"one").unwrap();
        assert!(!to.exists());
        let size = archive.finish().unwrap();
        let there = fs::metadata(&to).unwrap();
        assert_eq!((there.len(), there.permissions().mode() & 0o777), (size, 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_archive_that_is_given_up_leaves_nothing_and_an_earlier_one_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("bundle.tar.gz");
        fs::write(&to, "earlier").unwrap();
        let mut archive = Archive::begin(&to, "bundle").unwrap();
        archive.add("a.txt", b"one").unwrap();
        drop(archive);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&to).unwrap(), "earlier");
    }

    #[test]
    fn no_name_from_the_cluster_leads_to_another_folder() {
        assert_eq!(safe("greeter.vm-1"), "greeter.vm-1");
        assert_eq!(safe("../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!((safe(".."), safe("."), safe("")), ("_".into(), "_".into(), "_".into()));
    }
}
