//! Pushes to a real registry: tarballs and layouts, what is there already, and going on after a break.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Exit, mcp_runtime, run, script, skip};
use crate::platform::Platform;

struct Registry {
    host: String,
    _child: Child,
    _data: tempfile::TempDir,
}

impl Registry {
    async fn start() -> Result<Self, String> {
        let built = run(&mut Command::new(script("services/registry/build"))).await;
        if built.code != Some(0) {
            return Err(built.stderr);
        }
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("config.yml");
        let root = data.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0', secret: test}}\n",
            root.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(built.stdout.trim())
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = timeout(DEADLINE, async {
            while let Ok(Some(line)) = lines.next_line().await {
                let message = serde_json::from_str::<Value>(&line).unwrap_or_default()["msg"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                if let Some(address) = message.strip_prefix("listening on ") {
                    return address.trim_end_matches(", tls").to_owned();
                }
            }
            panic!("the registry ended before it listened");
        });
        let host = host.await.expect("the registry does not listen");
        // Whatever it still says is read, so that it never waits for a reader.
        #[expect(clippy::disallowed_methods, reason = "it ends with the registry")]
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            host,
            _child: child,
            _data: data,
        })
    }

    async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let request = reqwest::Client::new().get(format!("http://{}/v2/{path}", self.host));
        let response = request
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// A layer that no compression makes small, longer than one piece.
fn layer() -> Vec<u8> {
    let mut seed = 7_u64;
    std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    })
    .take(20 << 20)
    .collect()
}

fn entry(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
}

/// What `docker save` wrote for years: a list, a configuration, plain layers.
fn docker_tarball(folder: &Path, layer: &[u8]) -> PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, "abc/layer.tar", layer);
    entry(&mut tar, "config.json", br#"{"architecture":"amd64","os":"linux"}"#);
    let list = json!([{ "Config": "config.json", "RepoTags": ["payments:v1"], "Layers": ["abc/layer.tar"] }]);
    entry(&mut tar, "manifest.json", list.to_string().as_bytes());
    let path = folder.join("image.tar");
    std::fs::write(&path, tar.into_inner().unwrap()).unwrap();
    path
}

/// An OCI layout, and the digest of its manifest.
fn layout(folder: &Path, layer: &[u8]) -> (PathBuf, String) {
    let folder = folder.join("layout");
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |media: &str, content: &[u8]| {
        let digest = digest(content);
        std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), content).unwrap();
        json!({ "mediaType": media, "digest": digest, "size": content.len() })
    };
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        br#"{"architecture":"amd64","os":"linux","rootfs":{}}"#,
    );
    let layers = [put("application/vnd.oci.image.layer.v1.tar", layer)];
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media, "config": config, "layers": layers });
    let named = put(media, manifest.to_string().as_bytes());
    let digest = named["digest"].as_str().unwrap().to_owned();
    std::fs::write(
        folder.join("index.json"),
        json!({ "schemaVersion": 2, "manifests": [named] }).to_string(),
    )
    .unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (folder, digest)
}

async fn push(home: &Path, platform: &Platform, registry: &Registry, words: &[&str]) -> Exit {
    let mut command = mcp_runtime(home);
    command.args([
        "--api-url",
        &platform.url,
        "-o",
        "json",
        "registry",
        "push",
        "--registry",
        &registry.host,
    ]);
    run(command.args(words)).await
}

#[tokio::test]
async fn images_are_pushed_from_files_by_layers() {
    let registry = match Registry::start().await {
        Ok(registry) => registry,
        Err(reason) => return skip("registry", &reason),
    };
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_hours(1)).await;
    let layer = layer();
    let tarball = docker_tarball(home.path(), &layer);
    let from = tarball.to_str().unwrap();

    let exit = push(
        home.path(),
        &platform,
        &registry,
        &["--scope", "org", "--image", "payments:v1", "--from", from],
    )
    .await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let told = exit.json();
    assert_eq!(told["name"], format!("{}/org/payments:v1", registry.host));
    assert_eq!(told["sent"], 3, "{told}");
    let (status, manifest) = registry.get("org/payments/manifests/v1").await;
    assert_eq!((status, told["digest"].as_str()), (200, Some(digest(&manifest).as_str())));
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["layers"][0]["digest"], digest(&layer));
    let (status, stored) = registry.get(&format!("org/payments/blobs/{}", digest(&layer))).await;
    assert_eq!((status, digest(&stored)), (200, digest(&layer)));

    // Once more: nothing but the manifest. Into another repository: the layers are mounted.
    let again = push(
        home.path(),
        &platform,
        &registry,
        &["--scope", "org", "--image", "payments:v1", "--from", from],
    )
    .await
    .json();
    assert_eq!((&again["sent"], &again["present"]), (&json!(1), &json!(2)), "{again}");
    let words = [
        "--scope",
        "tenant",
        "--image",
        "payments:v1",
        "--from",
        from,
        "--mount-from",
        "org/payments",
    ];
    let other = push(home.path(), &platform, &registry, &words).await.json();
    assert_eq!(other["name"], format!("{}/acme/payments:v1", registry.host));
    assert_eq!((&other["sent"], &other["mounted"]), (&json!(1), &json!(2)), "{other}");

    // A layout keeps its digest; the same compressed works as well.
    let (folder, wanted) = layout(home.path(), &layer);
    let words = [
        "--scope",
        "public",
        "--name",
        "payments:v2",
        "--image",
        folder.to_str().unwrap(),
    ];
    let pushed = push(home.path(), &platform, &registry, &words).await.json();
    assert_eq!(pushed["digest"], wanted);
    let packed = home.path().join("image.tar.gz");
    let mut encoder = flate2::write::GzEncoder::new(std::fs::File::create(&packed).unwrap(), flate2::Compression::fast());
    encoder.write_all(&std::fs::read(&tarball).unwrap()).unwrap();
    encoder.finish().unwrap();
    let words = ["--scope", "org", "--image", "payments:v3", "--from", packed.to_str().unwrap()];
    let pushed = push(home.path(), &platform, &registry, &words).await.json();
    assert_eq!(
        (&pushed["digest"], &pushed["present"]),
        (&told["digest"], &json!(2)),
        "{pushed}"
    );
}

#[tokio::test]
async fn a_push_goes_on_where_an_earlier_one_broke_off() {
    let registry = match Registry::start().await {
        Ok(registry) => registry,
        Err(reason) => return skip("registry", &reason),
    };
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_hours(1)).await;
    let layer = layer();
    let (folder, _) = layout(home.path(), &layer);

    // What a run that was killed leaves behind: a begun upload, and a note of it.
    let http = reqwest::Client::new();
    let begun = http
        .post(format!("http://{}/v2/org/payments/blobs/uploads/", registry.host))
        .send()
        .await
        .unwrap();
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let sent = 9 << 20;
    let part = http.patch(&location).header("content-range", format!("0-{}", sent - 1));
    let part = part
        .header("content-type", "application/octet-stream")
        .body(layer[..sent].to_vec())
        .send()
        .await
        .unwrap();
    let location = part.headers()["location"].to_str().unwrap().to_owned();
    let key = format!("{}/org/payments {}", registry.host, digest(&layer));
    std::fs::write(home.path().join("uploads.json"), json!({ key: location }).to_string()).unwrap();

    let words = ["--scope", "org", "--name", "payments:v1", "--image", folder.to_str().unwrap()];
    let told = push(home.path(), &platform, &registry, &words).await.json();
    assert_eq!(told["resumed"], 1, "{told}");
    let (status, stored) = registry.get(&format!("org/payments/blobs/{}", digest(&layer))).await;
    assert_eq!((status, digest(&stored)), (200, digest(&layer)));
}

#[tokio::test]
async fn what_is_no_image_or_not_allowed_is_told_before_any_work() {
    let home = tempfile::tempdir().unwrap();
    let platform = Platform::start(Duration::from_hours(1)).await;
    let registry = Registry::start().await;
    let Ok(registry) = registry else {
        return skip("registry", "it cannot be built");
    };
    std::fs::write(home.path().join("x.tar"), "nonsense").unwrap();
    let file = home.path().join("x.tar");
    for (words, code, text) in [
        (
            vec!["--scope", "org", "--image", "payments:v1", "--from", file.to_str().unwrap()],
            1,
            "reading",
        ),
        (
            vec!["--scope", "tenant", "--image", "globex/payments:v1", "--from", "."],
            4,
            "none of your teams",
        ),
        (vec!["--scope", "org", "--image", "Payments:v1"], 2, "is no image reference"),
    ] {
        let exit = push(home.path(), &platform, &registry, &words).await;
        assert_eq!(exit.code, Some(code), "{words:?}: {exit:?}");
        assert!(exit.stderr.contains(text), "{words:?}: {exit:?}");
    }
}
