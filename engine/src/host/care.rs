//! Looking after the store of this host's Podman: examining it, and repairing its layers.
//!
//! Layers are read by a few threads, each taking the next one. What they find goes through a
//! bounded channel; whoever stops listening stops them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use podkeep_format::id::DiffId;
use podkeep_format::item::{Item, ItemKind};

use super::local::LocalHost;
use super::lock::ItemLock;
use super::{
    Examination, ExamineRequest, Examined, HostError, LayerName, LayerRepair, LayerRepaired,
    Remedy, StoreCare, StoreFault,
};
use crate::fs::{FsError, FsErrorKind};
use crate::podman::{
    Doctor, Fault, LayerId, LayerMender, RepairError, StorageError, StoredImage, StoredLayer,
    Subject, clear_repair, repairs_left_behind,
};

/// Reader threads.
const THREADS_MAX: usize = 8;
/// Steps that wait for whoever listens.
const STEPS_MAX: usize = 64;
/// Bytes that are read between two steps that tell of them.
const STEP_BYTES: u64 = 8 << 20;

impl StoreCare for LocalHost {
    fn examine(&self, request: &ExamineRequest) -> Result<Box<dyn Examination>, HostError> {
        let storage = self.images()?.storage()?;
        let doctor = Doctor::new(storage).map_err(not_listed)?;
        let wanted = |layer: &&StoredLayer| match &request.only {
            None => true,
            Some(only) => diff_id(layer).is_some_and(|id| only.contains(&id)),
        };
        let layers: Vec<StoredLayer> = doctor.layers().filter(wanted).cloned().collect();
        let (outbox, inbox) = sync_channel(STEPS_MAX);
        let ward = Arc::new(Ward {
            names: names(&doctor),
            doctor,
            layers,
            next: AtomicUsize::new(0),
            with_images: request.only.is_none(),
        });
        let threads = request.threads.clamp(1, THREADS_MAX);
        let leader = std::thread::Builder::new()
            .name("examine".into())
            .spawn(move || lead(&ward, threads, &outbox))
            .map_err(|error| {
                let object = "layers".as_bytes();
                FsError::new("read", object, FsErrorKind::Other, error)
            })?;
        Ok(Box::new(Examining {
            inbox: Some(inbox),
            leader: Some(leader),
        }))
    }

    fn clear_repairs(&self) -> Result<(), HostError> {
        let storage = self.images()?.storage()?;
        for id in repairs_left_behind(&storage).map_err(not_listed)? {
            match self.lock(&repaired(id)) {
                Ok(_lock) => clear_repair(&storage, id).map_err(not_repaired)?,
                Err(HostError::Busy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn repair(&self, layer: &LayerName) -> Result<Box<dyn LayerRepair>, HostError> {
        self.require_own_store()?;
        let images = self.images()?;
        let Some(id) = LayerId::from_hex(&layer.id) else {
            return Err(HostError::Podman {
                action: "repair",
                object: format!("layer {}", layer.id),
                cause: "this is no layer's ID".into(),
            });
        };
        // Another run that repairs it would use the same folder beside it.
        let lock = self.lock(&repaired(id))?;
        let run_root = images.run_root()?;
        let mender = LayerMender::open(&images.storage()?, run_root, id).map_err(not_repaired)?;
        Ok(Box::new(Repairing {
            mender,
            _lock: lock,
        }))
    }
}

/// What is locked while a layer is repaired.
fn repaired(layer: LayerId) -> Item {
    Item::new(ItemKind::Image, layer.to_hex())
}

fn not_listed(error: StorageError) -> HostError {
    HostError::Podman {
        action: "list",
        object: "images".into(),
        cause: error.to_string(),
    }
}

struct Repairing {
    mender: LayerMender,
    _lock: ItemLock,
}

impl LayerRepair for Repairing {
    fn write(&mut self, bytes: &[u8]) -> Result<(), HostError> {
        self.mender.push(bytes).map_err(not_repaired)
    }

    fn finish(self: Box<Self>) -> Result<LayerRepaired, HostError> {
        let mended = self.mender.finish().map_err(not_repaired)?;
        Ok(LayerRepaired {
            files: mended.files,
            bytes: mended.bytes,
            left: mended.left,
        })
    }
}

fn not_repaired(error: RepairError) -> HostError {
    match &error {
        RepairError::InUse { layer, users } => HostError::Refused {
            object: format!("layer {layer}"),
            cause: format!("it is in use by {}", users.join(", ")),
            hint: "`podman stop NAME` (or `podman unmount NAME`) ends that".into(),
        },
        RepairError::NotHere { layer, cause } | RepairError::Failed { layer, cause } => {
            HostError::Podman {
                action: "repair",
                object: format!("layer {layer}"),
                cause: cause.clone(),
            }
        }
        RepairError::Storage(error) => HostError::Podman {
            action: "list",
            object: "layers".into(),
            cause: error.to_string(),
        },
    }
}

/// What is examined.
struct Ward {
    doctor: Doctor,
    layers: Vec<StoredLayer>,
    /// The first layer that nobody has taken.
    next: AtomicUsize,
    /// Whether images are looked at, too.
    with_images: bool,
    names: BTreeMap<String, Item>,
}

/// What images are called, by ID.
fn names(doctor: &Doctor) -> BTreeMap<String, Item> {
    let name = |image: &StoredImage| {
        let id = image.id.to_hex();
        let name = image.names.iter().min().unwrap_or(&id).clone();
        (id, Item::new(ItemKind::Image, name))
    };
    doctor.images().iter().map(name).collect()
}

fn diff_id(layer: &StoredLayer) -> Option<DiffId> {
    layer.diff_id.or(layer.expected_diff_id)
}

struct Examining {
    /// `None` once it is dropped.
    inbox: Option<Receiver<Examined>>,
    leader: Option<JoinHandle<bool>>,
}

impl Examination for Examining {
    fn next(&mut self) -> Result<Option<Examined>, HostError> {
        if let Some(step) = self.inbox.as_ref().and_then(|inbox| inbox.recv().ok()) {
            return Ok(Some(step));
        }
        match self.leader.take().map(JoinHandle::join) {
            None | Some(Ok(true)) => Ok(None),
            Some(Ok(false) | Err(_)) => Err(HostError::Podman {
                action: "read",
                object: "layers".into(),
                cause: "the reading stopped".into(),
            }),
        }
    }
}

impl Drop for Examining {
    fn drop(&mut self) {
        // Readers that have something to tell find nobody, and end.
        drop(self.inbox.take());
        if let Some(leader) = self.leader.take() {
            // Nobody is there to hear of a panic.
            let _ = leader.join();
        }
    }
}

/// Nobody listens any more.
struct Unheard;

/// Returns whether everything was looked at.
fn lead(ward: &Ward, threads: usize, outbox: &SyncSender<Examined>) -> bool {
    if ward.begin(outbox).is_err() {
        return false;
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(ward.layers.len()))
            .map(|_| scope.spawn(|| ward.work(outbox)))
            .collect();
        let done = |worker: std::thread::ScopedJoinHandle<'_, Result<(), Unheard>>| {
            matches!(worker.join(), Ok(Ok(())))
        };
        // Each is waited for, whatever became of another.
        workers
            .into_iter()
            .map(done)
            .fold(true, |all, one| all & one)
    })
}

fn tell(outbox: &SyncSender<Examined>, step: Examined) -> Result<(), Unheard> {
    outbox.send(step).map_err(|_| Unheard)
}

impl Ward {
    /// What is known without reading layers.
    fn begin(&self, outbox: &SyncSender<Examined>) -> Result<(), Unheard> {
        let sizes = self.layers.iter().filter_map(|layer| layer.diff_size);
        let images = self.doctor.images();
        tell(
            outbox,
            Examined::Plan {
                images: images.len() as u64,
                layers: self.layers.len() as u64,
                bytes: sizes.fold(0, u64::saturating_add),
            },
        )?;
        for fault in self.doctor.list_faults() {
            tell(outbox, Examined::Fault(self.named(fault.clone(), None)))?;
        }
        if !self.with_images {
            return Ok(());
        }
        for entry in self.doctor.not_understood() {
            let fault = StoreFault {
                object: entry.object.clone(),
                layer: None,
                images: Vec::new(),
                path: None,
                cause: format!("it is not understood: {}", entry.cause),
                remedy: Remedy::RemoveAndRestore,
            };
            tell(outbox, Examined::Fault(fault))?;
        }
        for image in images {
            for fault in self.doctor.image_faults(image) {
                tell(outbox, Examined::Fault(self.named(fault, None)))?;
            }
        }
        Ok(())
    }

    fn work(&self, outbox: &SyncSender<Examined>) -> Result<(), Unheard> {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = self.layers.get(index) else {
                return Ok(());
            };
            let mut untold = 0;
            let faults = self.doctor.layer_faults(layer, &mut |bytes| {
                untold += bytes;
                match untold >= STEP_BYTES {
                    true => tell(outbox, Examined::Read(std::mem::take(&mut untold))).is_ok(),
                    false => true,
                }
            });
            let Some(faults) = faults else {
                return Err(Unheard);
            };
            tell(outbox, Examined::Read(untold))?;
            for fault in faults {
                tell(outbox, Examined::Fault(self.named(fault, Some(layer))))?;
            }
            tell(outbox, Examined::Layer)?;
        }
    }

    fn named(&self, fault: Fault, layer: Option<&StoredLayer>) -> StoreFault {
        let images = self.doctor.images_of(fault.subject);
        let mut images: Vec<Item> = images
            .into_iter()
            .filter_map(|image| self.names.get(&image.id.to_hex()).cloned())
            .collect();
        images.sort();
        let (object, layer) = match fault.subject {
            Subject::Image(id) => (format!("image {id}"), None),
            Subject::Layer(id) => {
                let name = LayerName {
                    id: id.to_hex(),
                    diff_id: layer.and_then(diff_id),
                };
                (format!("layer {id}"), Some(name))
            }
        };
        StoreFault {
            object,
            layer,
            images,
            path: fault.path,
            cause: fault.cause,
            remedy: fault.remedy,
        }
    }
}
