use super::*;

fn of(variables: &[(&str, &str)]) -> (Option<Otlp>, Vec<String>) {
    let mut reader = Reader::default();
    let found = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| (*text).to_owned())
    };
    let otlp = read(found, "shop", &mut reader);
    (otlp, reader.problems.iter().map(ToString::to_string).collect())
}

const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/");

#[test]
fn nothing_is_exported_unless_an_endpoint_is_said() {
    assert_eq!(of(&[("OTEL_TRACES_SAMPLER", "nonsense")]), (None, vec![]));
    assert_eq!(of(&[HTTP, ("OTEL_SDK_DISABLED", "true")]), (None, vec![]));
    assert_eq!(of(&[HTTP, ("OTEL_TRACES_EXPORTER", "none")]), (None, vec![]));
    assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), (None, vec![]));
}

#[test]
fn an_endpoint_is_read_as_the_specification_says() {
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let rows: [(&[(&str, &str)], &str); 7] = [
        (&[HTTP], "http collector 4318 /base/v1/traces"),
        (&[HTTP, (traces, "http://one/v2?x=1")], "http one 4318 /v2?x=1"),
        (&[(traces, "https://one")], "https one 443 /"),
        (&[(HTTP.0, "http://[::1]:9")], "http ::1 9 /v1/traces"),
        (&[(HTTP.0, "http://one"), grpc], &format!("http one 4317 {GRPC_PATH}")),
        (&[(HTTP.0, "https://one:1/"), grpc], &format!("https one 1 {GRPC_PATH}")),
        (&[(HTTP.0, "http://one/x?y=1")], "http one 4318 /x/v1/traces?y=1"),
    ];
    for (variables, expected) in rows {
        let (otlp, problems) = of(variables);
        let OtlpEndpoint { tls, host, port, path } = otlp.unwrap_or_else(|| panic!("{problems:?}")).endpoint;
        let scheme = if tls { "https" } else { "http" };
        assert_eq!(format!("{scheme} {host} {port} {path}"), expected);
    }
}

#[test]
fn what_a_host_would_pass_over_in_silence_is_refused_and_no_password_is_shown() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let rows: [(&[(&str, &str)], &str); 5] = [
        (
            &[("OTEL_TRACES_EXPORTER", "console")],
            "OTEL_TRACES_EXPORTER: \"console\" is not supported\n    hint: use one of: otlp, none",
        ),
        (
            &[HTTP, ("OTEL_TRACES_EXPORTER", "otlp,console")],
            "OTEL_TRACES_EXPORTER: \"otlp,console\" is not supported",
        ),
        (
            &[HTTP, grpc],
            "OTEL_EXPORTER_OTLP_ENDPOINT: \"http://collector:4318/base/\" has a path, which gRPC does not have",
        ),
        (
            &[(HTTP.0, "https://anna:hunter2@collector")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: a user or a password in an address is not sent",
        ),
        (
            &[(HTTP.0, "anna:hunter2@collector:4318")],
            "OTEL_EXPORTER_OTLP_ENDPOINT: a user or a password in an address is not sent",
        ),
    ];
    for (variables, expected) in rows {
        let problems = of(variables).1.join("\n");
        assert!(problems.contains(expected), "{expected}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn headers_attributes_and_samplers_are_those_of_the_variables() {
    let (otlp, problems) = of(&[
        HTTP,
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=a%20b%3D, x=y"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=shop"),
        ("OTEL_SERVICE_NAME", "orders"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
    ]);
    let otlp = otlp.expect("it is valid");
    assert_eq!(problems, Vec::<String>::new());
    let text = |pairs: &[(String, String)]| pairs.iter().map(|(k, v)| format!("{k}={v};")).collect::<String>();
    assert_eq!(text(&otlp.headers), "api-key=a b=;x=y;");
    let resource = text(&otlp.resource);
    assert!(
        resource.starts_with("team=shop;service.name=orders;service.version="),
        "{resource}"
    );
    assert!(resource.ends_with("jetmesh.mesh=shop;"), "{resource}");
    let sampler = Sampler {
        by_parent: false,
        ratio: 0.25,
    };
    assert_eq!(otlp.sampler, sampler);
    assert_eq!((otlp.batch.queue_max, otlp.batch.export_max), (100, 100));
}

#[test]
fn what_is_wrong_with_a_variable_is_said_with_its_name_the_rule_and_the_fix() {
    let (_, problems) = of(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ]);
    insta::assert_snapshot!(problems.join("\n"), @r#"
      OTEL_SDK_DISABLED: "yes" is not supported
        hint: use one of: true, false
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/json" is not supported
        hint: use one of: grpc, http/protobuf
      OTEL_EXPORTER_OTLP_COMPRESSION: "gzip" is not supported
        hint: use one of: none
      OTEL_EXPORTER_OTLP_HEADERS: an element is not KEY=VALUE with %XX for special characters
        hint: write KEY=VALUE,KEY=VALUE
      OTEL_EXPORTER_OTLP_TIMEOUT: "10s" is not a whole number, 1 to 1000000000
        hint: leave it out for the default, 10000
      OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" is not an address of http:// or https:// with a host
        hint: for instance http://127.0.0.1:4318
      OTEL_EXPORTER_OTLP_CERTIFICATE: /no/such.pem: I/O error: No such file or directory (os error 2)
        hint: name a file with certificates as PEM
      OTEL_RESOURCE_ATTRIBUTES: "team" is not KEY=VALUE with %XX for special characters
        hint: write KEY=VALUE,KEY=VALUE
      OTEL_TRACES_SAMPLER: "jaeger_remote" is not supported
        hint: use one of: parentbased_always_on, parentbased_always_off, parentbased_traceidratio, always_on, always_off, traceidratio
      OTEL_BSP_SCHEDULE_DELAY: "0" is not a whole number, 1 to 1000000000
        hint: leave it out for the default, 5000
    "#);
}
