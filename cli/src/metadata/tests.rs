use super::*;

const FILE: &str = "# Our servers.\nversion: v1\nservers:\n  # The first.\n  - name: payments # money\n    image: registry.example.com/org/payments # pinned\n    tools:\n      - name: list_invoices\n        sideEffect: read\n\n  - name: hr\n    image: hr\n# The end.\n";

fn path() -> &'static Path {
    Path::new("servers.yaml")
}

#[test]
fn a_misspelt_key_is_told_with_its_line_and_what_was_meant() {
    for (wrong, right, line) in [
        ("imageTga: v1", "imageTag", 7),
        ("tools:\n      - name: a\n        requiredTurst: low", "requiredTrust", 9),
    ] {
        let text = FILE
            .replace("    tools:", &format!("    {wrong}\n    tools_:"))
            .split("    tools_:")
            .next()
            .unwrap()
            .to_owned();
        let fault = parse(path(), &text).unwrap_err().to_string();
        assert!(
            fault.contains(&format!("servers.yaml:{line}:")) && fault.contains(&format!("did you mean `{right}`?")),
            "{fault}"
        );
    }
    let fault = parse(path(), "version: v2\n").unwrap_err().to_string();
    assert!(fault.contains("expected \"v1\""), "{fault}");
}

#[test]
fn an_entry_becomes_a_spec_with_the_guides_defaults() {
    let entry = |text: &str| {
        parse(path(), &format!("servers:\n  - name: payments\n{text}"))
            .unwrap()
            .servers
            .remove(0)
    };
    let spec = entry("").spec();
    assert_eq!(
        (spec.image.as_deref(), spec.image_tag.as_deref(), spec.is_governed()),
        (Some("payments"), Some("latest"), true)
    );
    assert_eq!(
        (spec.port(), spec.service_port(), spec.public_path_prefix.as_deref()),
        (8088, 80, Some("payments"))
    );
    for (text, prefix) in [
        ("    route: /pay", "pay"),
        ("    route: pay/mcp", "pay"),
        ("    route: /a\n    publicPathPrefix: b", "b"),
    ] {
        assert_eq!(entry(text).spec().public_path_prefix.as_deref(), Some(prefix), "{text}");
    }
    assert_eq!(entry("    scope: ORG").manifest_namespace(), "mcp-servers-org");
    assert_eq!(
        entry("    gateway:\n      enabled: true\n      upstreamURL: http://127.0.0.1:1/mcp")
            .spec()
            .image,
        None
    );
}

#[test]
fn comments_and_order_survive_every_change() {
    let text = set_fields(
        path(),
        FILE,
        "payments",
        &[("image", "ghcr.io/acme/payments"), ("imageTag", "v2")],
    )
    .unwrap();
    let expected = FILE
        .replace("registry.example.com/org/payments", "ghcr.io/acme/payments")
        .replace(
            "  - name: payments # money\n",
            "  - name: payments # money\n    imageTag: v2\n",
        );
    assert_eq!(text, expected);
    let entry = Entry {
        name: "hr".to_owned(),
        image: Some("other".to_owned()),
        ..Entry::default()
    };
    assert_eq!(
        put_entry(path(), FILE, &entry).unwrap(),
        FILE.replace("    image: hr", "    image: other")
    );
    let entry = Entry {
        name: "new".to_owned(),
        ..Entry::default()
    };
    assert_eq!(
        put_entry(path(), FILE, &entry).unwrap(),
        FILE.replace("# The end.", "  - name: new\n# The end.")
    );
    assert_eq!(
        put_entry(path(), "", &entry).unwrap(),
        "version: v1\nservers:\n    - name: new\n".replace("    - ", "  - ")
    );
    let flow = "servers: [{name: payments}]\n";
    assert!(
        set_fields(path(), flow, "payments", &[("image", "x")])
            .unwrap_err()
            .to_string()
            .contains("by hand")
    );
}

#[test]
fn a_name_that_comes_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), FILE).unwrap();
    std::fs::write(folder.path().join("b.yml"), "servers:\n  - name: hr\n").unwrap();
    let fault = read(folder.path(), None).unwrap_err().to_string();
    assert!(fault.contains("`hr`") && fault.contains("b.yml"), "{fault}");
    assert_eq!(read(folder.path(), Some(&folder.path().join("a.yaml"))).unwrap().len(), 2);
}

#[test]
fn the_schema_knows_every_field() {
    let schema = schema();
    for field in [
        "requiredTrust",
        "sideEffect",
        "publicPathPrefix",
        "secretEnvVars",
        "maxLifetime",
    ] {
        assert!(schema.contains(field), "{field}");
    }
}
