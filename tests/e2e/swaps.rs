//! The ways in which module files are replaced, each of which a serving host takes up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::mesh::{Config, Mesh, PATIENT, says};
use crate::modules::{second_version, version, with_own_module};
use crate::support::wait::SOON;
use crate::support::{Host, modules};

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the test's folder is writable");
    fs::write(path, bytes).expect("the test's folder is writable");
}

fn first_version() -> Vec<u8> {
    fs::read(modules::handler("probe")).expect("the probe is readable")
}

/// A mesh whose probe is at `path` of the test's folder, where `lay` has laid it.
async fn serving_from(path: &str, lay: impl Fn(&Path)) -> (Mesh, Host) {
    let mut mesh = Mesh::new(Config::new()).await;
    lay(mesh.dir.path());
    let module = mesh.dir.path().join(path);
    mesh.config = Config::new().handler("probe", &module, "bucket = \"probe\"\npublish = [\"events.>\"]");
    let host = mesh.host(&[]).await;
    assert_eq!(version(&mesh, 0).await, "1");
    (mesh, host)
}

async fn serves_the_second(mesh: &Mesh, host: &Host) {
    host.wait_for_line(says(&["module swapped", "handler=probe"]), SOON)
        .await;
    assert_eq!(version(mesh, 1).await, "2");
}

#[tokio::test]
async fn a_folder_of_kubernetes_flips_its_link() {
    let (mesh, host) = serving_from("mods/m.wasm", |dir| {
        let mods = dir.join("mods");
        write(&mods.join("..2026_a/m.wasm"), &first_version());
        symlink("..2026_a", mods.join("..data")).expect("a link");
        symlink("..data/m.wasm", mods.join("m.wasm")).expect("a link");
    })
    .await;
    let mods = mesh.dir.path().join("mods");
    write(&mods.join("..2026_b/m.wasm"), &second_version());
    symlink("..2026_b", mods.join("..data_tmp")).expect("a link");
    fs::rename(mods.join("..data_tmp"), mods.join("..data")).expect("the link can be replaced");
    fs::remove_dir_all(mods.join("..2026_a")).expect("the old folder can go");
    serves_the_second(&mesh, &host).await;
}

#[tokio::test]
async fn a_link_to_a_release_is_set_to_another_one() {
    let (mesh, host) = serving_from("current/m.wasm", |dir| {
        write(&dir.join("rel/1/m.wasm"), &first_version());
        symlink("rel/1", dir.join("current")).expect("a link");
    })
    .await;
    let dir = mesh.dir.path();
    write(&dir.join("rel/2/m.wasm"), &second_version());
    fs::remove_file(dir.join("current")).expect("the link can go");
    symlink("rel/2", dir.join("current")).expect("a link");
    serves_the_second(&mesh, &host).await;
}

#[tokio::test]
async fn a_folder_is_removed_and_built_again() {
    let (mesh, host) = serving_from("out/m.wasm", |dir| write(&dir.join("out/m.wasm"), &first_version())).await;
    let out = mesh.dir.path().join("out");
    fs::remove_dir_all(&out).expect("the folder can go");
    host.wait_for_line(says(&["the module file does not exist"]), SOON)
        .await;
    write(&out.join("m.wasm"), &second_version());
    serves_the_second(&mesh, &host).await;
}

#[tokio::test]
async fn an_editor_saves_by_way_of_a_backup() {
    let (mesh, host) = serving_from("m.wasm", |dir| write(&dir.join("m.wasm"), &first_version())).await;
    let module = mesh.dir.path().join("m.wasm");
    fs::rename(&module, module.with_extension("wasm~")).expect("the file can be moved");
    write(&module, &second_version());
    fs::remove_file(module.with_extension("wasm~")).expect("the backup can go");
    serves_the_second(&mesh, &host).await;
}

#[tokio::test]
async fn a_file_of_the_same_size_and_time_is_moved_over_it() {
    let (mesh, host) = serving_from("m.wasm", |dir| write(&dir.join("m.wasm"), &first_version())).await;
    let (module, other) = (mesh.dir.path().join("m.wasm"), mesh.dir.path().join("n.wasm"));
    write(&other, &second_version());
    let modified = fs::metadata(&module).and_then(|m| m.modified()).expect("a time");
    let file = fs::File::options().append(true).open(&other).expect("a file");
    file.set_modified(modified).expect("its time can be set");
    fs::rename(&other, &module).expect("the file can be replaced");
    serves_the_second(&mesh, &host).await;
}

#[tokio::test]
async fn a_file_that_is_always_written_to_beside_a_module_does_not_keep_it_back() {
    let (mesh, host, module) = with_own_module("").await;
    assert_eq!(version(&mesh, 0).await, "1");
    let log = module.with_file_name("host.log");
    fs::write(&module, second_version()).expect("the module can be changed");
    let noise = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for line in 0_u64.. {
            ticks.tick().await;
            fs::write(&log, line.to_string()).expect("the test's folder is writable");
        }
    };
    tokio::select! {
        () = noise => {}
        () = serves_the_second(&mesh, &host) => {}
    }
}

#[tokio::test]
async fn a_module_that_is_too_large_or_no_file_is_told_and_the_old_one_goes_on() {
    let (mesh, host, module) = with_own_module("").await;
    let other = module.with_extension("new");
    let file = fs::File::create(&other).expect("the test's folder is writable");
    file.set_len(200 * 1024 * 1024).expect("a file may be large");
    fs::rename(&other, &module).expect("the file can be replaced");
    let kept = "the module file cannot be read; the loaded module continues to serve";
    host.wait_for_line(says(&[kept, "handler=probe", "larger than 128 MiB"]), SOON)
        .await;
    fs::remove_file(&module).expect("the file can go");
    fs::create_dir(&module).expect("the test's folder is writable");
    host.wait_for_line(says(&[kept, "not a file"]), SOON).await;
    assert_eq!(version(&mesh, 0).await, "1");
    let said = host.lines().iter().filter(|line| line.contains(kept)).count();
    assert_eq!(said, 2, "each is said once");
    fs::remove_dir(&module).expect("the folder can go");
    write(&module, &second_version());
    serves_the_second(&mesh, &host).await;
}

#[tokio::test]
async fn handlers_with_the_same_module_share_one_compilation() {
    let mut mesh = Mesh::new(Config::new()).await;
    let path = |mesh: &Mesh, n: usize| mesh.dir.path().join(format!("mods/{}.wasm", n / 2));
    const HANDLERS: usize = 8;
    let mut config = Config::new();
    for n in 0..HANDLERS {
        // Two of them on each file, and all files are the same.
        write(&path(&mesh, n), &first_version());
        let lines = format!("bucket = \"probe\"\nsubjects = [\"orders.h{n}\"]");
        config = config.handler(&format!("h{n}"), &path(&mesh, n), &lines);
    }
    mesh.config = config;
    let host = mesh.host(&[]).await;
    let compiled = || {
        host.lines()
            .iter()
            .filter(|line| line.contains("module compiled"))
            .count()
    };
    assert_eq!(compiled(), 1);
    for n in (0..HANDLERS).step_by(2) {
        write(&path(&mesh, n), &second_version());
    }
    for n in 0..HANDLERS {
        host.wait_for_line(says(&["module swapped", &format!("handler=h{n} ")]), PATIENT)
            .await;
    }
    assert_eq!(compiled(), 2);
    // Each still has instances of its own.
    for n in 0..HANDLERS {
        let add = json!({ "op": "add", "key": format!("n{n}"), "by": 1 });
        mesh.publish(&format!("orders.h{n}"), add.to_string()).await;
    }
    for n in 0..HANDLERS {
        mesh.wait_value("probe", &format!("n{n}"), "1").await;
    }
}
