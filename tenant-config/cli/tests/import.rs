//! `tenant-config import`: where its output goes, and how it ends.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// One interface whose every element has a key.
const COMPLETE: &str = "<domain><name>red-vm4</name><devices><interface type='ethernet'>\n\
    <mac address='52:54:00:aa:00:04'/><target dev='red-vm4' managed='no'/>\n\
    <filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.14'/></filterref>\n\
    </interface></devices></domain>\n";

const SECTION: &str = "# domain \"red-vm4\", interface 1\n[[port]]\nname = \"red-vm4\"\n\
    mac = \"52:54:00:aa:00:04\"\naddresses = [\"10.0.0.14\"]\nannounce = true\n";

fn import(format: &str, file: &str, input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenant-config"))
        .args(["import", "--from", format, file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(input.as_bytes())
        .expect("the input is read");
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

#[track_caller]
fn assert_output(output: &Output, status: i32, stdout: &str, stderr: &str) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (Some(status), stdout.to_owned(), stderr.to_owned())
    );
}

#[test]
fn complete_description_ends_with_0() {
    assert_output(&import("libvirt", "-", COMPLETE), 0, SECTION, "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("red-vm4.xml");
    std::fs::write(&file, COMPLETE).unwrap();
    assert_output(
        &import("libvirt", file.to_str().unwrap(), ""),
        0,
        SECTION,
        "",
    );
}

#[test]
fn sections_fit_the_end_of_a_tenant_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("red.toml");
    let red = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/red.toml");
    let red = std::fs::read_to_string(red).unwrap();
    std::fs::write(&file, format!("{red}\n{SECTION}")).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_tenant-config"))
        .arg("check")
        .arg(&file)
        .output()
        .unwrap();
    let valid = "red: valid, VNI 5001, 3 ports, an uplink, a geneve tunnel to 2 peers\n";
    assert_output(&check, 0, valid, "");
}

#[test]
fn incomplete_description_prints_sections_and_ends_with_3() {
    let text = COMPLETE.replace("<mac", "<port isolated='yes'/><mac");
    assert_output(
        &import("libvirt", "-", &text),
        3,
        SECTION,
        "-:2: port \"red-vm4\": <port>: the VMs of one tenant reach each other; give an isolated \
         VM \
         a tenant of its own\n",
    );
}

#[test]
fn unusable_description_prints_nothing_and_ends_with_1() {
    let expected = "-: this is a <domain>; an OVF descriptor begins with <Envelope>\n";
    assert_output(&import("ovf", "-", COMPLETE), 1, "", expected);
    let expected = "-: line 4: not usable XML: ";
    let output = import("libvirt", "-", &COMPLETE.replace("</filterref>", ""));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with(expected),
        "{output:?}"
    );
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    let expected = "no.xml: cannot be read: No such file or directory (os error 2)\n";
    assert_output(&import("libvirt", "no.xml", ""), 1, "", expected);
}

#[test]
fn unknown_format_ends_with_2() {
    assert_eq!(import("vmx", "-", "").status.code(), Some(2));
}
