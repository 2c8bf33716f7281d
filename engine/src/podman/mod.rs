//! All knowledge of Podman: running it, and what it says and keeps.

mod account;
mod adopt;
mod archive;
mod artifact;
pub mod checkpoint;
mod command;
mod definition;
mod doctor;
mod files;
mod image;
mod info;
pub mod keep;
mod layer;
pub mod layout;
mod list_lock;
mod load;
mod load_fed;
mod namespace;
mod networks;
mod prime;
mod push;
mod quiesce;
mod repair;
pub mod replay;
mod secrets;
mod state;
mod storage;
mod substitute;
mod tar;
mod tar_split;
mod units;
mod volume;
mod writable;

pub use account::{Account, UserSession, below_runtime};
pub use adopt::{AdoptError, Adoption, Before, ImageRecords};
pub use archive::{ArchiveFiles, ArchivedImage, ArchivedLayer, archived_images};
pub use artifact::{
    Artifact, ArtifactAdded, ArtifactDefinition, ArtifactStore, Blob, parse_index, parse_manifest,
};
pub use command::{Podman, PodmanError};
pub use definition::{
    ConfigDefinition, ConfigSource, ContainerDefinition, DEFINITION_BYTES_MAX, ENTRIES_MAX,
    KeptFile, NetworkDefinition, PodDefinition, SECRET_BYTES_MAX, SecretDefinition, UnitDefinition,
    UnitKind, is_object_name,
};
pub use doctor::{Doctor, Fault, Remedy, Subject};
pub use image::{
    BIG_DATA_FOLDER, ChangedLayer, ImageDefinition, LAYERS_FOLDER, LAYERS_MAX, LayerDefinition,
    ORIGINAL_FOLDER, ShownImage, big_data_entry, inspect_image, layer_file, layer_of_file,
};
pub use info::StoreInfo;
pub use layer::{
    LAYER_EVENT_BYTES_MAX, LayerEnd, LayerError, LayerEvent, LayerObjects, LayerReader, NotExact,
    OwnTar, OwnTarReader,
};
pub use load::{config_key, load as load_image};
pub use namespace::Inside;
pub use networks::list_networks;
pub use prime::{Primer, SEED_NAME, remove_seed};
pub use push::push as push_image;
pub use quiesce::{
    Deadline, LiveContainer, Resumption, UNIT_LABEL, Units, exec, live_containers, pause, start,
    stop, unpause,
};
pub use repair::{
    LayerMender, Mended, RepairError, clear as clear_repair, left_behind as repairs_left_behind,
};
pub use secrets::{list_secrets, read_secret};
pub use state::{StoredContainer, StoredPod, StoredState, effective_spec, read_bolt, read_state};
pub use storage::{
    BIG_DATA_BYTES_MAX, BigData, ImageId, LayerId, NotUnderstood, Origin, Storage, StorageDriver,
    StorageError, StoragePlaces, StoreListing, StoredImage, StoredLayer,
};
pub use substitute::{diff_ids, substitute};
pub use tar_split::{TarSplit, TarSplitEntry, TarSplitError};
pub use units::{UnitPlaces, find_configs, find_units};
pub use volume::{
    Difference, Users, Volume, VolumeContent, VolumeDefinition, inspect_volume, list_volumes,
    users_of_volumes,
};
pub use writable::{Changes, LayerPlace, WritableLayer, layer_place, mounted_over, writable_layer};
