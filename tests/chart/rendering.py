"""What the chart renders: the same from both Helms, as the golden files say, legal for every Kubernetes, and tight."""
import re
import shutil
import sys

import yaml

from bench import CACHE, CASES, CHART, HELMS, HERE, ROOT, TEMPORARY, find, files_of, must, need, render, render_values, template

NAMES = [path.name.removesuffix(".values.yaml") for path in CASES]
KUBERNETES = [f"1.{minor}" for minor in range(29, 38)]


def golden(case):
    return HERE / "cases" / f"{case}.golden.yaml"


def bless():
    for case in NAMES:
        status, output = template(*files_of(case))
        assert status == 0, output
        golden(case).write_text(output)


def test_lints_with_both_helms():
    for helm in HELMS.values():
        for values in [[CHART / "values.yaml"], [CHART / "values-ha.yaml"], *map(files_of, NAMES)]:
            arguments = [part for one in values for part in ("--values", one)]
            must(need(helm), "lint", "--strict", CHART, *arguments)


def test_matches_the_golden_files_with_both_helms():
    for case in NAMES:
        wanted = golden(case).read_text()
        for helm in HELMS:
            status, output = template(*files_of(case), helm=helm)
            assert status == 0, output
            same = list(yaml.safe_load_all(output)) == list(yaml.safe_load_all(wanted))
            assert same and (helm == 3 or output == wanted), f"{case} with helm {helm} differs; look at it, then tests/chart/run CACHE --bless"


def test_renders_the_same_twice():
    for case in NAMES:
        assert template(*files_of(case)) == template(*files_of(case))


def test_objects_are_legal_from_1_29_to_the_newest():
    validate = need(CACHE / "venv-chart" / "bin" / "kubernetes-validate")
    file = TEMPORARY / "objects.yaml"
    for case in NAMES:
        ours = [one for one in render(case) if not one["apiVersion"].startswith("monitoring.coreos.com/")]  # no schema for these
        file.write_text(yaml.safe_dump_all(ours))
        for version in KUBERNETES:
            must(validate, "-k", version, "--strict", file)


def test_refuses_contradictions_with_advice():
    for row in yaml.safe_load((HERE / "refusals.yaml").read_text()):
        for helm in HELMS:
            status, output = render_values(row["values"], helm=helm)
            assert status != 0, f"accepted: {row['values']}"
            assert row["says"] in output, f"{row['says']!r} is not in: {output}"


def test_readme_and_schema_are_made_from_the_values():
    must(sys.executable, HERE / "generate", "--check")


def test_every_value_is_used():
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    def walk(value, path):
        if isinstance(value, dict) and value and path[-1:] not in (["resources"], ["labels"]):
            for key, one in value.items():
                walk(one, [*path, key])
        else:
            assert path[-1] in text, f"{'.'.join(path)} is used by no template"

    walk(yaml.safe_load((CHART / "values.yaml").read_text()), [])


def test_the_shipped_files_are_those_of_docs():
    for name in ("prometheus-rules.yaml", "grafana-dashboard.json"):
        source, shipped = ROOT / "docs" / name, CHART / "files" / name
        if source.exists():
            assert shipped.exists() and shipped.read_bytes() == source.read_bytes(), f"helm/files/{name} is not docs/{name}: copy it"
    for switch, kind, file in (("prometheusRule", "PrometheusRule", "prometheus-rules.yaml"), ("dashboard", "sidekey-dashboard", "grafana-dashboard.json")):
        status, output = render_values({"monitoring": {switch: {"enabled": True}}})
        there = (CHART / "files" / file).exists()
        assert (status == 0) == there and (kind if there else "built without") in output, output


def pods(objects):
    return [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"]


def test_pods_are_tight():
    for case in NAMES:
        for pod in pods(render(case)):
            assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
            assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            assert ("fsGroup" in pod["securityContext"]) == (case != "inline-dual"), "Secrets can be read"
            assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"))
            assert not any("hostPath" in volume for volume in pod["volumes"])
            for container in pod.get("initContainers", []) + pod["containers"]:
                security = container["securityContext"]
                assert security["readOnlyRootFilesystem"] and security["runAsNonRoot"] and not security["privileged"]
                assert not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}
                assert ("runAsUser" in security) == (case != "inline-dual")  # openshift: true
                assert "limits" in container["resources"] and "livenessProbe" in container and "startupProbe" in container


def test_sidekey_starts_last_and_stops_first():
    for case in NAMES:
        for pod in pods(render(case)):
            if pod["containers"][0]["name"] != "sidekey":
                continue
            gateway, = pod["initContainers"]
            assert gateway["name"] == "gateway" and gateway["restartPolicy"] == "Always", "a native sidecar"
            config = yaml.safe_load(find(render(case), "ConfigMap", "sidekey")["data"]["sidekey.yaml"])
            limits = {"drain_delay_secs": 5, "drain_secs": 25, **config.get("limits", {})}
            assert pod["terminationGracePeriodSeconds"] > limits["drain_delay_secs"] + limits["drain_secs"]


def test_only_sidekey_is_in_the_service():
    for case in ("minimal", "everything", "inline-dual"):
        objects = render(case)
        service = find(objects, "Service", "sidekey")["spec"]
        assert [port["targetPort"] for port in service["ports"]] == ["client"]
        policy = find(objects, "NetworkPolicy")["spec"]
        reachable = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert reachable <= {8900, 8901}, reachable


def test_only_sidekey_has_an_identity():
    for case in ("everything", "pod-identity", "sidecar", "minimal"):
        for pod in pods(render(case)):
            gateway, sidekey = pod["initContainers"][0], pod["containers"][0]
            assert [mount["name"] for mount in gateway["volumeMounts"]] == ["sidekey-gateway"]
            names = {one["name"] for one in gateway["env"]}
            assert not any(name.startswith(("AWS_", "AZURE_", "GOOGLE_")) for name in names), names
            assert not any("valueFrom" in one for one in gateway["env"])
            projected = {volume["name"] for volume in pod["volumes"] if "projected" in volume}
            assert projected <= {mount["name"] for mount in sidekey["volumeMounts"]}
    objects = render("everything")
    pod, = pods(objects)
    tokens = next(volume for volume in pod["volumes"] if volume["name"] == "sidekey-tokens")["projected"]["sources"]
    assert {one["serviceAccountToken"]["path"]: one["serviceAccountToken"]["audience"] for one in tokens} == {
        "vault/token": "vault", "aws/token": "sts.amazonaws.com", "azure/token": "api://AzureADTokenExchange",
        "gcp/token": "https://iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool/providers/cluster",
    }
    annotations = find(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["eks.amazonaws.com/skip-containers"] == annotations["azure.workload.identity/skip-containers"] == "gateway"


def test_a_container_sees_the_keys_it_needs_and_no_other():
    """One Secret may hold the keys of several parts; the data plane does not get the control plane's."""
    keys = {"name": "keys"}
    status, output = render_values({
        "config": {"client_auth": "api_key"}, "secrets": {"apiKeyHash": keys, "adminToken": {**keys, "key": "operator"}, "tls": keys},
        "controlPlane": {"enabled": True, "databaseUrlSecret": keys, "bootstrapKeySecret": keys, "apiKeyHashSecret": keys, "signingKeySecret": keys}})
    assert status == 0, output
    objects = [one for one in yaml.safe_load_all(output) if one]
    for name, wanted in (("sidekey", ["api-key-hash", "operator", "tls.crt", "tls.key"]), ("sidekey-control-plane", ["api-key-hash", "bootstrap-key", "signing-key.pem", "url"])):
        volumes = find(objects, "Deployment", name)["spec"]["template"]["spec"]["volumes"]
        assert sorted(one["key"] for volume in volumes if "secret" in volume for one in volume["secret"]["items"]) == wanted


def test_metadata_addresses_are_closed_unless_needed():
    for case in NAMES:
        for policy in (one["spec"] for one in render(case) if one["kind"] == "NetworkPolicy"):
            for rule in policy.get("egress", []):
                for peer in rule.get("to", []):
                    block = peer.get("ipBlock", {})
                    if block.get("cidr") == "0.0.0.0/0":
                        assert "169.254.0.0/16" in block["except"]
                    elif block.get("cidr") == "::/0":
                        assert "fe80::/10" in block["except"]
                    elif "cidr" in block:
                        assert case == "pod-identity", f"{case}: {block}"


def test_the_gateway_trusts_no_loopback():
    for case in ("minimal", "everything", "inline-dual"):
        pod, = pods(render(case))
        env = {one["name"]: one["value"] for one in pod["initContainers"][0]["env"]}
        hosts = env["TRUSTED_CUSTOM_HOSTS"].split(",")
        assert all(hosts) and not {"localhost", "127.0.0.1", "::1", "host.docker.internal"} & set(hosts)
        config = yaml.safe_load(find(render(case), "ConfigMap", "sidekey")["data"]["sidekey.yaml"])
        assert f"--max-http-header-size={config['upstream']['max_head_bytes']}" in env["NODE_OPTIONS"]


def test_holds_no_secret():
    """No Secret is rendered, nothing is random, and what values may carry in clear is refused (refusals.yaml)."""
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert not re.search(r"\b(rand\w+|gen\w+(Key|Cert|CA)|htpasswd|uuidv4|lookup|now)\b", re.sub(r"\{\{/\*.*?\*/\}\}", "", text, flags=re.S).replace("generateAccessToken", ""))
    for case in NAMES:
        assert not any(one["kind"] == "Secret" for one in render(case))


def test_config_arrives_exactly():
    config = yaml.safe_load(find(render("inline-dual"), "ConfigMap", "sidekey")["data"]["sidekey.yaml"])
    assert config["cache"] == {"max_bytes": 17179869184, "jitter_ratio": 0.1} and config["limits"]["model_peek_bytes"] == 67108864
    assert config["egress"] == {"proxy_url": "http://proxy.internal:3128", "allow_cidrs": ["10.20.0.0/16"],
                                "extra_ca_files": ["/etc/sidekey/extra-ca/ca.crt"]}
    text = find(render("inline-dual"), "ConfigMap", "sidekey")["data"]["sidekey.yaml"]
    assert "17179869184" in text and "e+" not in text


def full_configuration():
    """config/sidecar-full.yaml as values: without what follows from others."""
    full = yaml.safe_load((ROOT / "config" / "sidecar-full.yaml").read_text())
    theirs = {"listen", "admin_listen", "webhook_listen", "admin_token_file", "api_key_hash_file", "fingerprint_key_file", "sealing", "tls"}
    given = {key: value for key, value in full.items() if key not in theirs}
    for section, keys in {"upstream": ["url", "max_head_bytes"], "snapshot": ["file", "control_plane"], "webhooks": ["tls"]}.items():
        given[section] = {key: value for key, value in given[section].items() if key not in keys}
    return given


def test_every_key_of_the_configuration_can_be_set():
    """config/sidecar-full.yaml through `config`, and config/control-plane-full.yaml through `controlPlane.config`, arrive as they are."""
    given = full_configuration()
    # What is unset by default, so that no key is only seen as null.
    given["limits"] = {**given["limits"], "price_file": "/etc/prices.yaml",
                       "redis": {**given["limits"]["redis"], "url_file": "/mnt/redis", "ca_file": "/mnt/ca.crt"},
                       "alerts": {"webhook_url": "https://alerts.test", "secret_file": "/mnt/alerts"}}
    given["recovery"] = {**given["recovery"], "overlap_secs": 86400, "max_kept_bytes": 17179869184}
    given["webhooks"]["hmac"] = {"secret_file": "/mnt/hmac", "tolerance_secs": 60}
    values = {"config": {**given, "allow_unauthenticated": True}, "webhooks": {"enabled": True, "tlsSecret": {"name": "certificate"}}}
    for helm in HELMS:
        status, output = render_values(values, helm=helm)
        assert status == 0, output
        rendered = yaml.safe_load(find([one for one in yaml.safe_load_all(output) if one], "ConfigMap", "sidekey")["data"]["sidekey.yaml"])
        for key, value in set_leaves(values["config"]):
            assert at(rendered, key) == value and type(at(rendered, key)) is type(value), f"{key}: {value!r} became {at(rendered, key)!r}"

    full = yaml.safe_load((ROOT / "config" / "control-plane-full.yaml").read_text())
    theirs = {"listen", "tls", "database_file", "database_url_file", "bootstrap_key_file", "api_key_hash_file", "signing_key_file"}
    given = {key: value for key, value in full.items() if key not in theirs}
    status, output = render_values({"controlPlane": {"enabled": True, "config": given}})
    assert status == 0, output
    objects = [one for one in yaml.safe_load_all(output) if one]
    rendered = yaml.safe_load(find(objects, "ConfigMap", "sidekey-control-plane")["data"]["control-plane.yaml"])
    for key, value in set_leaves(given):
        assert at(rendered, key) == value, f"{key}: {value!r} became {at(rendered, key)!r}"


def set_leaves(value, path=()):
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in set_leaves(one, (*path, key))]
    return [] if value is None else [(path, value)]


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_webhooks_are_off_and_apart():
    for case in NAMES:
        objects = render(case)
        ports = {port["name"] for pod in pods(objects) for container in pod["containers"] for port in container["ports"]}
        services = [one["metadata"]["name"] for one in objects if one["kind"] == "Service"]
        assert ("webhooks" in ports) == ("sidekey-webhooks" in services) == (case == "webhooks"), f"{case}: {ports} {services}"
    objects = render("webhooks")
    service = find(objects, "Service", "sidekey-webhooks")["spec"]
    assert service["ports"] == [{"name": "webhooks", "port": 443, "targetPort": "webhooks", "protocol": "TCP"}]
    rule, = [rule for rule in find(objects, "NetworkPolicy")["spec"]["ingress"] if rule["ports"][0]["port"] == 8903]
    assert rule["from"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]


def test_changed_configuration_makes_new_pods_and_a_changed_snapshot_does_not():
    def checksum(values):
        status, output = render_values(values, base="inline-dual")
        assert status == 0, output
        annotations = find([one for one in yaml.safe_load_all(output) if one], "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return annotations["checksum/sidekey-config"]

    assert checksum({}) == checksum({"snapshot": {"inline": '{"schema_version": 1}'}}) == checksum({"replicas": 5})
    assert checksum({}) != checksum({"config": {"cache": {"ttl_secs": 60}}})


def foreign():
    chart = TEMPORARY / "foreign"
    shutil.copytree(HERE / "foreign", chart, dirs_exist_ok=True)
    shutil.copytree(CHART, chart / "charts" / "sidekey", dirs_exist_ok=True)
    return chart


def test_another_chart_can_include_sidekey():
    for helm in HELMS:
        status, output = template(chart=foreign(), helm=helm, release="acme")
        assert status == 0, output
        objects = [one for one in yaml.safe_load_all(output) if one]
        assert sorted(one["kind"] for one in objects) == ["ConfigMap", "ConfigMap", "Deployment", "ServiceAccount"]
        pod, = pods(objects)
        assert pod["securityContext"]["fsGroup"] == 65532, "Secrets can be read"
        gateway, sidekey = pod["containers"]
        assert sidekey["name"] == "sidekey" and gateway["lifecycle"]["preStop"]["exec"]["command"][1].endswith("/wait-for-sidekey.cjs")
        assert [mount["name"] for mount in gateway["volumeMounts"]] == ["sidekey-gateway"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in sidekey["volumeMounts"]} <= volumes
        named = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume} - {"entities"}
        assert named == {one["metadata"]["name"] for one in objects if one["kind"] == "ConfigMap"}


def test_no_document_is_malformed_for_both_deployments():
    """Every container mounts what its pod has, and no path twice."""
    for case in NAMES:
        for pod in pods(render(case)):
            volumes = [volume["name"] for volume in pod["volumes"]]
            assert len(volumes) == len(set(volumes)), volumes
            for container in pod.get("initContainers", []) + pod["containers"]:
                paths = [mount["mountPath"] for mount in container["volumeMounts"]]
                assert len(paths) == len(set(paths)) and {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)


def test_dockerfile_is_clean():
    must(need(CACHE / "venv-chart" / "bin" / "hadolint"), ROOT / "Dockerfile")


def test_every_error_code_has_a_way_out():
    """docs/troubleshooting.md starts from each code of docs/errors.md, and from no other."""
    codes = set(re.findall(r"^\| `([a-z_]+)` \| \d{3} \|", (ROOT / "docs" / "errors.md").read_text(), flags=re.M))
    headings = re.findall(r"^### `([a-z_]+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.M)
    assert len(codes) > 20 and sorted(headings) == sorted(codes), set(headings) ^ codes
