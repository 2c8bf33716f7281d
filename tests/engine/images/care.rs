//! A store is looked over, with a Podman that is a script and says only where the store is.

use std::fs;

use podkeep_engine::host::local::LocalHost;
use podkeep_engine::monitor::{Collect, Finding, FindingKind, Monitor, Progress};
use podkeep_engine::operations::{DoctorOptions, DoctorReport, OperationError, doctor};
use podkeep_engine::podman::{LayerId, StorageDriver};
use serde_json::json;

use super::{DRIVERS, noise, odd_tar, upper_tar};
use crate::fake_store::{Ending, FakeStore, Tar};

/// Two images: `localhost/a:1` has one layer, `localhost/b:1` has one on top of it.
pub struct Clinic {
    pub store: FakeStore,
    pub lower: LayerId,
    pub upper: LayerId,
}

impl Clinic {
    pub fn new(driver: StorageDriver) -> Self {
        let mut store = FakeStore::new(driver);
        let lower = store.layer(&odd_tar().end(Ending::Blocks(2)), None);
        // Overlay unpacks what goes through a link of a lower layer beside it.
        let tar = match driver {
            StorageDriver::Overlay => upper_tar(),
            _ => Tar::default().file("same-2", b"other").file("new", b"x"),
        };
        let upper = store.layer(&tar, Some(lower));
        store.image("localhost/a:1", Some(lower));
        store.image("localhost/b:1", Some(upper));
        store.write_lists();
        Self {
            store,
            lower,
            upper,
        }
    }

    pub fn host(&self) -> LocalHost {
        self.store.host()
    }

    pub fn doctor(&self) -> (DoctorReport, Vec<Finding>) {
        let monitor = Collect::default();
        let options = DoctorOptions { threads: 2 };
        let report = doctor::doctor(&self.host(), &options, &monitor).unwrap();
        (report, monitor.findings.into_inner().unwrap())
    }

    /// The one finding that there is.
    #[track_caller]
    pub fn only_finding(&self) -> Finding {
        let (report, mut findings) = self.doctor();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((report.damaged, report.images), (1, 2));
        assert_eq!(findings[0].kind, FindingKind::Damaged);
        findings.remove(0)
    }
}

const REPAIR_A: &str = "`podkeep restore SNAP --repair-layers image:localhost/a:1` puts it right";

#[test]
fn a_sound_store_has_no_damage() {
    for driver in DRIVERS {
        let (report, findings) = Clinic::new(driver).doctor();
        assert_eq!(findings, []);
        assert_eq!((report.images, report.layers, report.damaged), (2, 2, 0));
    }
}

#[test]
fn i_11_doctor_names_the_layer_its_images_the_file_and_the_remedy() {
    for driver in DRIVERS {
        for harm in 0..3 {
            let clinic = Clinic::new(driver);
            let file = clinic.store.folder(clinic.lower).join("large");
            match harm {
                0 => fs::remove_file(&file).unwrap(),
                1 => {
                    let mut content = fs::read(&file).unwrap();
                    content[1_500_000] ^= 1;
                    fs::write(&file, content).unwrap();
                }
                _ => fs::write(&file, b"").unwrap(),
            }
            let finding = clinic.only_finding();
            assert_eq!(finding.object, format!("layer {}", clinic.lower));
            assert_eq!(finding.paths, [b"large".to_vec()]);
            let needed = "needed by image:localhost/a:1, image:localhost/b:1; ";
            assert!(finding.message.contains("at 'large': "), "{finding:?}");
            assert!(
                finding.message.ends_with(&format!("{needed}{REPAIR_A}")),
                "{finding:?}"
            );
        }
    }
}

#[test]
fn i_11_doctor_tells_of_a_layer_without_a_record() {
    let mut clinic = Clinic::new(StorageDriver::Overlay);
    clinic.store.layers.remove(0);
    clinic.store.write_lists();
    let finding = clinic.only_finding();
    assert_eq!(finding.object, format!("layer {}", clinic.lower));
    assert!(finding.message.contains("no record of it"), "{finding:?}");
    let needed = "needed by image:localhost/a:1, image:localhost/b:1";
    assert!(finding.message.contains(needed), "{finding:?}");
    let remedy = "`podkeep restore SNAP image:localhost/a:1` brings it back";
    assert!(finding.message.ends_with(remedy), "{finding:?}");
}

#[test]
fn i_11_doctor_tells_of_entries_that_nobody_understands() {
    let mut clinic = Clinic::new(StorageDriver::Overlay);
    clinic.store.images.push(json!({"id": "no ID"}));
    clinic.store.write_lists();
    let finding = clinic.only_finding();
    assert!(finding.object.ends_with("images.json, entry 3"));
    assert!(finding.message.contains("not understood"), "{finding:?}");
}

#[test]
fn i_11_doctor_tells_of_a_missing_tar_split() {
    let clinic = Clinic::new(StorageDriver::Vfs);
    fs::remove_file(clinic.store.split_file(clinic.upper)).unwrap();
    let finding = clinic.only_finding();
    assert_eq!(finding.object, format!("layer {}", clinic.upper));
    assert!(finding.message.contains("tar-split is missing"));
    assert!(
        finding
            .message
            .contains("--repair-layers image:localhost/b:1")
    );
}

#[test]
fn i_11_doctor_tells_of_an_incomplete_layer() {
    let mut clinic = Clinic::new(StorageDriver::Overlay);
    let upper = clinic.upper;
    clinic.store.record(upper)["flags"] = json!({"incomplete": true});
    clinic.store.write_lists();
    let finding = clinic.only_finding();
    assert_eq!(finding.object, format!("layer {upper}"));
    assert!(finding.message.contains("incomplete"), "{finding:?}");
}

#[test]
fn i_11_doctor_tells_of_a_missing_directory() {
    for driver in DRIVERS {
        let clinic = Clinic::new(driver);
        fs::remove_dir_all(clinic.store.folder(clinic.lower)).unwrap();
        let finding = clinic.only_finding();
        assert_eq!(finding.object, format!("layer {}", clinic.lower));
        assert!(finding.message.contains("its directory is missing"));
    }
}

#[test]
fn i_11_doctor_tells_of_what_overlay_mounts_a_layer_by() {
    for (name, content, expected) in [
        (
            "link",
            None,
            "'link', which the overlay driver needs, is missing",
        ),
        (
            "link",
            Some(""),
            "'link', which the overlay driver needs, is empty",
        ),
        (
            "lower",
            None,
            "'lower', which the overlay driver needs, is missing",
        ),
        (
            "lower",
            Some("\n"),
            "'lower', which the overlay driver needs, is empty",
        ),
    ] {
        let clinic = Clinic::new(StorageDriver::Overlay);
        let file = clinic.store.folder(clinic.upper).with_file_name(name);
        match content {
            None => fs::remove_file(file).unwrap(),
            Some(content) => fs::write(file, content).unwrap(),
        }
        let finding = clinic.only_finding();
        assert_eq!(finding.object, format!("layer {}", clinic.upper));
        assert!(finding.message.contains(expected), "{finding:?}");
    }
}

/// Podman makes the links anew from the files `link`.
#[test]
fn a_link_that_podman_makes_again_is_a_note() {
    let clinic = Clinic::new(StorageDriver::Overlay);
    fs::remove_dir_all(clinic.store.graph_root().join("overlay/l")).unwrap();
    let (report, findings) = clinic.doctor();
    assert_eq!((report.damaged, findings.len()), (0, 2));
    assert!(findings.iter().all(|f| f.kind == FindingKind::Note));
}

#[test]
fn big_data_is_compared_with_its_record() {
    let mut clinic = Clinic::new(StorageDriver::Overlay);
    let (_, listing) = clinic.store.read();
    let image = listing.images[0].id;
    let manifest = clinic.store.image_folder(image).join("manifest");
    let len = fs::read(&manifest).unwrap().len();
    fs::write(&manifest, noise(1, len)).unwrap();
    let finding = clinic.only_finding();
    assert_eq!(finding.object, format!("image {image}"));
    let remedy = "`podkeep restore SNAP image:localhost/a:1` puts it right";
    assert!(finding.message.ends_with(remedy), "{finding:?}");
}

/// Stops at once.
struct Impatient;

impl Monitor for Impatient {
    fn finding(&self, _: Finding) {}
    fn progress(&self, _: Progress<'_>) {}
    fn interrupted(&self) -> bool {
        true
    }
}

#[test]
fn doctor_can_be_interrupted() {
    let clinic = Clinic::new(StorageDriver::Overlay);
    let stopped = doctor::doctor(&clinic.host(), &DoctorOptions::default(), &Impatient);
    assert!(matches!(stopped, Err(OperationError::Interrupted)));
}
