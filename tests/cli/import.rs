//! Importing archives: what is named how, and what the exit code says.

use crate::Desk;

/// A tar of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = vec![0; 512];
    tar[..name.len()].copy_from_slice(name.as_bytes());
    tar[100..107].copy_from_slice(b"0000640");
    tar[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    tar[148..156].copy_from_slice(b"        ");
    tar[156] = b'0';
    let sum: u32 = tar.iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

#[test]
fn archives_become_one_snapshot_and_a_broken_one_is_a_warning() {
    let desk = Desk::with_repository();
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(desk.path(name), bytes).expect("a file");
        desk.path(name).display().to_string()
    };
    let good = format!("web={}", put("good", &tar("page", b"hello")));
    let half = format!("db={}", put("half", &tar("page", &[1; 4000])[..2000]));
    let image = put("image", &tar("page", b"no image"));

    let lines = desk.json(&["import", "--volume", &good, "--tag", "old"], 0);
    assert_eq!(lines[0]["command"], "import");
    let item = lines.iter().find(|line| line["type"] == "item");
    assert_eq!(item.expect("an item")["item"], "volume:web");
    assert_eq!(desk.ok(&["dump", "latest", "volume:web:/page"]), "hello");

    let lines = desk.json(&["import", &image, "--volume", &good, "--volume", &half], 3);
    let told: Vec<&str> = lines
        .iter()
        .filter(|line| line["type"] == "finding" && line["kind"] == "unreadable")
        .filter_map(|line| line["message"].as_str())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("holds no image"), "{told:?}");
    assert!(told[1].contains("ends early"), "{told:?}");

    let planned = desk.ok(&["import", "--volume", &good, "--dry-run"]);
    assert!(planned.contains("volume:web"), "{planned}");
    desk.exits(&["import", &image], 1);
    desk.exits(&["import"], 2);
    desk.exits(&["import", "--volume", "no-file"], 2);
    desk.exits(&["import", "--volume", "a/b=c"], 1);
}
