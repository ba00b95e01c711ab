//! Which image a server's container runs.

use crds::server::DEFAULT_IMAGE_TAG;

/// The full reference: tag appended when the image names neither tag nor digest, registry put in place.
pub fn resolve(image: &str, tag: Option<&str>, registry: Option<&str>) -> String {
    let image = image.trim();
    let tag = tag.map(str::trim).filter(|tag| !tag.is_empty()).unwrap_or(DEFAULT_IMAGE_TAG);
    let tagged = if has_tag_or_digest(image) {
        image.to_owned()
    } else {
        format!("{image}:{tag}")
    };
    match registry
        .map(|registry| registry.trim().trim_end_matches('/'))
        .filter(|registry| !registry.is_empty())
    {
        Some(registry) => format!("{registry}/{}", without_registry(&tagged)),
        None => tagged,
    }
}

/// Whether a reference names what to run beyond its repository. `host:5000/image` has a port and no tag.
fn has_tag_or_digest(image: &str) -> bool {
    image.contains('@')
        || match (image.rfind(':'), image.rfind('/')) {
            (Some(colon), Some(slash)) => colon > slash,
            (colon, None) => colon.is_some(),
            (None, _) => false,
        }
}

/// The reference without its first segment, when that is a host.
fn without_registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_like_people_read_them() {
        for (image, tag, registry, expected) in [
            ("payments", None, None, "payments:latest"),
            ("payments", Some("v1"), None, "payments:v1"),
            ("payments:v2", Some("v1"), None, "payments:v2"),
            ("host:5000/payments", Some("v1"), None, "host:5000/payments:v1"),
            ("host:5000/payments:v2", Some("v1"), None, "host:5000/payments:v2"),
            ("payments@sha256:ab", Some("v1"), None, "payments@sha256:ab"),
            ("payments", Some("v1"), Some("r.example/"), "r.example/payments:v1"),
            (
                "docker.io/org/payments",
                Some("v1"),
                Some("r.example"),
                "r.example/org/payments:v1",
            ),
            ("localhost/payments:v1", None, Some("r.example"), "r.example/payments:v1"),
            ("org/payments:v1", None, Some("r.example"), "r.example/org/payments:v1"),
            (" payments ", Some(" "), Some(" "), "payments:latest"),
        ] {
            assert_eq!(resolve(image, tag, registry), expected, "{image} {tag:?} {registry:?}");
        }
    }
}
