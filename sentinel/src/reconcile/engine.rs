//! Container engines: which one is there, and the command line that runs an image with it.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::launch::Image;

/// Engines we know how to drive, the first found is taken.
const ENGINES: [&str; 2] = ["docker", "podman"];

/// The folders that programs are looked for in.
pub(crate) fn search_path() -> Vec<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "every program looks for others there, and no option could replace it"
    )]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// A program in one of the folders.
pub(crate) fn find(name: impl AsRef<OsStr>, folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(name.as_ref()))
        .find(|path| path.is_file())
}

/// The container engine of this machine.
pub(crate) fn engine(folders: &[PathBuf]) -> Option<PathBuf> {
    ENGINES.iter().find_map(|name| find(name, folders))
}

/// What the engine is told. Variables are named only: their values come from the engine's own environment, so that no list of
/// processes shows them.
pub(crate) fn run_arguments<'a>(
    image: &Image,
    name: &str,
    host_port: u16,
    variables: impl IntoIterator<Item = &'a String>,
) -> Vec<String> {
    let mut arguments: Vec<String> = ["run", "--rm", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        .map(str::to_owned)
        .into();
    arguments.extend(["--name".to_owned(), name.to_owned()]);
    arguments.extend(["--publish".to_owned(), format!("127.0.0.1:{host_port}:{}", image.port)]);
    for variable in variables {
        arguments.extend(["--env".to_owned(), variable.clone()]);
    }
    if let Some(folder) = &image.folder {
        arguments.extend(["--workdir".to_owned(), folder.clone()]);
    }
    let mut rest = image.command.iter();
    if let Some(program) = rest.next() {
        arguments.extend(["--entrypoint".to_owned(), program.clone()]);
    }
    arguments.push(image.reference.clone());
    arguments.extend(rest.chain(&image.args).cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::launch::Common;
    use super::*;

    #[test]
    fn an_image_becomes_a_command_line_without_values() {
        let image = Image {
            reference: "acme/payments:v1".to_owned(),
            command: vec!["serve".to_owned(), "--all".to_owned()],
            args: vec!["--verbose".to_owned()],
            folder: Some("/srv".to_owned()),
            port: 8088,
            common: Common {
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                port: None,
                upstream: None,
                paths: Vec::new(),
            },
        };
        let line = run_arguments(&image, "mcp-acme-payments", 40_001, &["TOKEN".to_owned()]).join(" ");
        assert_eq!(
            line,
            "run --rm --init --cap-drop=ALL --security-opt=no-new-privileges --name mcp-acme-payments --publish 127.0.0.1:40001:8088 \
             --env TOKEN --workdir /srv --entrypoint serve acme/payments:v1 --all --verbose"
        );
    }

    #[test]
    fn the_first_engine_on_the_path_is_taken() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(full.path().join("podman"), "").unwrap();
        let folders = [empty.path().to_owned(), full.path().to_owned()];
        assert_eq!(engine(&folders), Some(full.path().join("podman")));
        assert_eq!(engine(&folders[..1]), None);
    }
}
