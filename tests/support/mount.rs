//! File systems of other kinds and sizes for a test: mounted in a directory of its own, gone
//! when it ends.

#![allow(
    dead_code,
    reason = "each test target includes this file and uses a part of it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

pub struct Mounted {
    directory: PathBuf,
    image: Option<PathBuf>,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "making and attaching an image has no system call of its own"
    )]
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn mount_point() -> PathBuf {
    let made = tempfile::Builder::new()
        .prefix("podkeep-test-mount-")
        .tempdir();
    match made {
        Ok(directory) => directory.keep(),
        Err(error) => panic!("cannot make a mount point: {error}"),
    }
}

impl Mounted {
    /// A file system in memory ("tmpfs", "ramfs") with options ("size=1m").
    pub fn memory(kind: &str, options: &str) -> Self {
        let mounted = Self {
            directory: mount_point(),
            image: None,
        };
        let data = std::ffi::CString::new(options).unwrap();
        let result = rustix::mount::mount(
            "podkeep-test",
            &mounted.directory,
            kind,
            MountFlags::empty(),
            data.as_c_str(),
        );
        if let Err(errno) = result {
            panic!("cannot mount {kind}: {errno}");
        }
        mounted
    }

    /// An overlay of directories of one file system.
    pub fn overlay(lower: &Path, upper: &Path, work: &Path) -> Self {
        let mounted = Self {
            directory: mount_point(),
            image: None,
        };
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        let data = std::ffi::CString::new(options).unwrap();
        let result = rustix::mount::mount(
            "podkeep-test",
            &mounted.directory,
            "overlay",
            MountFlags::empty(),
            data.as_c_str(),
        );
        if let Err(errno) = result {
            panic!("cannot mount an overlay: {errno}");
        }
        mounted
    }

    /// A fresh file system in an image of so many MiB, with options for mkfs.
    pub fn image(kind: &str, mib: u64, options: &[&str]) -> Self {
        let directory = mount_point();
        let image = directory.with_extension("image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        let mounted = Self {
            directory,
            image: Some(image.clone()),
        };
        let path = image.to_str().unwrap();
        let force = if kind == "ext4" { "-F" } else { "-f" };
        let mut arguments = vec!["-q", force];
        arguments.extend(options);
        arguments.push(path);
        let directory = mounted.directory.to_str().unwrap();
        let made = run(&format!("mkfs.{kind}"), &arguments)
            .and_then(|()| run("mount", &["-o", "loop", path, directory]));
        if let Err(error) = made {
            panic!("cannot make and mount {kind}: {error}");
        }
        mounted
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(errno) = rustix::mount::unmount(&self.directory, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {errno}", self.directory.display());
        }
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{} stays: {error}", self.directory.display());
        }
        if let Some(image) = &self.image
            && let Err(error) = fs::remove_file(image)
        {
            eprintln!("{} stays: {error}", image.display());
        }
    }
}
