//! `replay` and `trace`: run the switch's pipeline on captured frames.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::capture::{Capture, CaptureWriter, CapturedFrame};
use super::config::load_offline;
use super::{CliError, OfflineArgs, ReplayArgs, TraceArgs, sa_keys};
use packet::Frame;
use pipeline::DropReason;
use pipeline::metadata::Channel;
use pipeline::{Counters, Generation, Pipeline, PortId, Stage, Verdict};

/// Called with each stage and what it found.
type Explain<'a> = dyn FnMut(Stage, fmt::Arguments<'_>) + 'a;

/// A switch without devices.
struct Offline {
    pipeline: Pipeline,
    counters: Arc<Counters>,
    /// Where packets to metadata go; nobody serves them.
    metadata: Arc<Channel>,
    /// The tenant's ports, then `uplink`; indexed by [`PortId`].
    names: Vec<String>,
    port: PortId,
    buffer: Vec<u8>,
    clock_ns: u64,
}

/// The result of one frame, as it is printed.
struct Outcome {
    verdict: &'static str,
    reason: Option<DropReason>,
    icmp_error: bool,
    /// The ports that send the frame.
    out: Vec<PortId>,
}

impl From<(Verdict, PortId)> for Outcome {
    fn from((verdict, in_port): (Verdict, PortId)) -> Self {
        let (verdict, reason, icmp_error, out) = match verdict {
            Verdict::Forward(out) => ("forward", None, false, vec![out]),
            // The copies are added as they are made.
            Verdict::Copies => ("forward", None, false, Vec::new()),
            Verdict::Reply => ("reply", None, false, vec![in_port]),
            Verdict::Drop(reason) => ("drop", Some(reason), false, Vec::new()),
            Verdict::DropWithError(reason) => ("drop", Some(reason), true, Vec::new()),
        };
        Self {
            verdict,
            reason,
            icmp_error,
            out,
        }
    }
}

impl Outcome {
    fn json(&self, frame: u64, names: &[String]) -> serde_json::Value {
        let out: Vec<&str> = self
            .out
            .iter()
            .map(|port| names[port.index()].as_str())
            .collect();
        let mut line = json!({
            "frame": frame,
            "verdict": self.verdict,
            "reason": self.reason.map(DropReason::name),
            "out": out,
        });
        if self.icmp_error {
            line["icmp_error"] = json!(true);
        }
        line
    }

    fn text(&self, names: &[String]) -> String {
        let mut text = self.verdict.to_owned();
        for (nth, port) in self.out.iter().enumerate() {
            let to = if nth == 0 { " to " } else { ", " };
            let _ = write!(text, "{to}{}", names[port.index()]);
        }
        if let Some(reason) = self.reason {
            let _ = write!(text, " {reason}");
        }
        if self.icmp_error {
            text.push_str(" (an ICMP error goes back)");
        }
        text
    }
}

impl Offline {
    fn new(args: &OfflineArgs) -> Result<Self, CliError> {
        let config = load_offline(&args.tenant)?;
        let names: Vec<String> = config.devices().map(|side| side.name.to_owned()).collect();
        let index = names.iter().position(|name| *name == args.port);
        let port = index
            .and_then(|index| u16::try_from(index).ok())
            .map(PortId)
            .ok_or_else(|| {
                CliError::Usage(format!(
                    "tenant {} has no port {:?}; --port takes one of: {}",
                    config.tenant,
                    args.port,
                    names.join(", ")
                ))
            })?;
        let generation = Generation::build(&config, None);
        let counters = generation.counters();
        let mut pipeline = Pipeline::new(generation);
        // A capture has no ARP or ND answers for the switch: its next hops count as resolved.
        if let Some(uplink) = &config.uplink {
            pipeline.assume_next_hops(0, uplink.mac);
        }
        if let Some(path) = &args.sa_keys {
            let sas = sa_keys::load(path, &config)?;
            sa_keys::install(&mut pipeline, &config, &sas);
        }
        let metadata = Arc::new(Channel::default());
        metadata.give_blanks();
        pipeline.join_metadata(Arc::clone(&metadata));
        Ok(Self {
            pipeline,
            counters,
            metadata,
            names,
            port,
            buffer: Vec::new(),
            clock_ns: 0,
        })
    }

    /// Copies the frame into the buffer, with the room that a device leaves around it, and advances
    /// the clock, which never goes back.
    fn receive(&mut self, frame: &CapturedFrame) {
        const TAILROOM: usize = 2048;
        self.buffer.clear();
        self.buffer.resize(Frame::HEADROOM, 0);
        self.buffer.extend_from_slice(&frame.bytes);
        self.buffer.resize(self.buffer.len() + TAILROOM, 0);
        self.clock_ns = self.clock_ns.max(frame.time_ns);
    }

    /// Processes one frame and calls `explain` for every stage. Returns what is sent, each frame
    /// with its port.
    fn process(
        &mut self,
        captured: &CapturedFrame,
        explain: Option<&mut Explain<'_>>,
    ) -> (Outcome, Vec<(PortId, Vec<u8>)>) {
        self.receive(captured);
        let len = captured.bytes.len();
        let mut frame = Frame::new(&mut self.buffer, Frame::HEADROOM, len, None);
        let (now_ns, port) = (self.clock_ns, self.port);
        let verdict = match explain {
            Some(explain) => self
                .pipeline
                .process_traced(now_ns, port, &mut frame, explain),
            None => self.pipeline.process(now_ns, port, &mut frame),
        };
        let bytes = frame.bytes().to_vec();
        while self.metadata.request(|_| ()) {}
        let mut outcome = Outcome::from((verdict, port));
        let mut sent = Vec::new();
        match verdict {
            Verdict::Copies => {
                self.pipeline
                    .send_copies((now_ns, port), &bytes, &mut |to, copy| {
                        outcome.out.push(to);
                        sent.push((to, copy.to_vec()));
                    })
            }
            Verdict::Forward(to) => sent.push((to, bytes)),
            Verdict::Reply | Verdict::DropWithError(_) => sent.push((port, bytes)),
            Verdict::Drop(_) => {}
        }
        (outcome, sent)
    }

    /// The counters of all ports, drops without zeros: a line for each port, or one JSON object.
    fn summary(&self, json: bool) -> String {
        let mut ports = Vec::new();
        let mut lines = String::new();
        for (port, name) in self.counters.ports().zip(&self.names) {
            let drops: Vec<(&str, u64)> = DropReason::ALL
                .iter()
                .map(|reason| (reason.name(), port.drops(*reason).get()))
                .filter(|(_, frames)| *frames > 0)
                .collect();
            let (rx, tx) = (port.rx_frames.get(), port.tx_frames.get());
            let replies = port.replies.get();
            let _ = write!(
                lines,
                "{name}: received {rx}, sent {tx}, answered {replies}"
            );
            for (reason, frames) in &drops {
                let _ = write!(lines, ", {reason} {frames}");
            }
            lines.push('\n');
            ports.push(json!({
                "name": name, "rx_frames": rx, "tx_frames": tx, "replies": replies,
                "drops": drops.into_iter().collect::<BTreeMap<_, _>>(),
            }));
        }
        if json {
            return format!("{}\n", json!({ "ports": ports }));
        }
        lines
    }
}

pub(super) fn replay(args: &ReplayArgs) -> Result<(), CliError> {
    let mut switch = Offline::new(&args.switch)?;
    let mut capture = Capture::open(&args.capture)?;
    let mut outputs = Outputs::new(args.out_dir.as_deref(), switch.names.len())?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut number, mut truncated) = (0, 0_u64);
    while let Some(frame) = capture.next_frame()? {
        number += 1;
        truncated += u64::from(frame.wire_len > frame.bytes.len());
        let (outcome, sent) = switch.process(&frame, None);
        if args.json {
            writeln!(out, "{}", outcome.json(number, &switch.names))?;
        } else {
            writeln!(out, "{number:>6}  {}", outcome.text(&switch.names))?;
        }
        for (port, bytes) in sent {
            let name = &switch.names[port.index()];
            outputs.write(port, name, switch.clock_ns, &bytes)?;
        }
    }
    if args.json {
        out.flush()?;
        eprint!("{}", switch.summary(true));
    } else {
        write!(out, "\n{}", switch.summary(false))?;
        out.flush()?;
    }
    outputs.finish()?;
    if truncated > 0 {
        eprintln!(
            "vswitch: {} has {truncated} truncated frames, which were processed as captured; \
             capture with a larger snap length",
            args.capture.display()
        );
    }
    Ok(())
}

/// A capture for each port that sends frames, created with its first frame.
struct Outputs {
    directory: Option<PathBuf>,
    writers: Vec<Option<(PathBuf, CaptureWriter)>>,
}

impl Outputs {
    fn new(directory: Option<&Path>, ports: usize) -> Result<Self, CliError> {
        if let Some(path) = directory {
            std::fs::create_dir_all(path).map_err(|source| CliError::Write {
                path: path.to_owned(),
                source,
            })?;
        }
        Ok(Self {
            directory: directory.map(Path::to_owned),
            writers: (0..ports).map(|_| None).collect(),
        })
    }

    fn write(
        &mut self,
        port: PortId,
        name: &str,
        time_ns: u64,
        bytes: &[u8],
    ) -> Result<(), CliError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let slot = &mut self.writers[port.index()];
        if slot.is_none() {
            let path = directory.join(format!("{name}.pcap"));
            let writer = CaptureWriter::create(&path);
            *slot = Some(match writer {
                Ok(writer) => (path, writer),
                Err(source) => return Err(CliError::Write { path, source }),
            });
        }
        if let Some((path, writer)) = slot {
            writer
                .write(time_ns, bytes)
                .map_err(|source| CliError::Write {
                    path: path.clone(),
                    source,
                })?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), CliError> {
        for (path, writer) in self.writers.into_iter().flatten() {
            writer
                .finish()
                .map_err(|source| CliError::Write { path, source })?;
        }
        Ok(())
    }
}

pub(super) fn trace(args: &TraceArgs) -> Result<(), CliError> {
    let mut switch = Offline::new(&args.switch)?;
    let frame = match &args.pcap {
        Some(path) => {
            let mut capture = Capture::open(path)?;
            let short = || {
                let path = path.display();
                CliError::Usage(format!("{path} has no frame {}", args.frame))
            };
            // The frames before it change state: leases learned, limits used up.
            for _ in 1..args.frame {
                let frame = capture.next_frame()?.ok_or_else(short)?;
                switch.process(&frame, None);
            }
            capture.next_frame()?.ok_or_else(short)?
        }
        None => {
            let bytes = parse_hex(&match &args.hex {
                Some(hex) => hex.clone(),
                None => hex_from_stdin()?,
            })?;
            CapturedFrame {
                time_ns: 0,
                wire_len: bytes.len(),
                bytes,
            }
        }
    };
    let mut steps = Vec::new();
    let mut explain = |stage: Stage, why: fmt::Arguments<'_>| {
        steps.push((stage.name(), why.to_string()));
    };
    let (outcome, sent) = switch.process(&frame, Some(&mut explain));
    // Of copies, which differ in their link's headers, the first is shown.
    let sent = sent.first().map(|(_, bytes)| hex(bytes));
    let mut out = io::stdout().lock();
    if args.json {
        let mut object = outcome.json(args.frame, &switch.names);
        let steps: Vec<_> = steps
            .iter()
            .map(|(stage, why)| json!({ "stage": stage, "why": why }))
            .collect();
        object["port"] = json!(args.switch.port);
        object["stages"] = json!(steps);
        object["sent"] = json!(sent);
        writeln!(out, "{object}")?;
        return Ok(());
    }
    let port = &args.switch.port;
    writeln!(out, "frame of {} bytes from {port}", frame.bytes.len())?;
    for (stage, why) in steps {
        writeln!(out, "  {stage:<10} {why}")?;
    }
    writeln!(out, "=> {}", outcome.text(&switch.names))?;
    if let Some(reason) = outcome.reason {
        writeln!(out, "   {}", reason.help())?;
    }
    if let Some(sent) = sent {
        writeln!(out, "   {sent}")?;
    }
    Ok(())
}

/// Prints the SAs of a file for Wireshark.
#[cfg(feature = "export-keys")]
pub(super) fn export_wireshark(tenant: &Path, keys: &Path) -> Result<(), CliError> {
    let sas = sa_keys::load(keys, &load_offline(tenant)?)?;
    write!(io::stdout().lock(), "{}", sa_keys::wireshark(&sas))?;
    Ok(())
}

fn hex_from_stdin() -> Result<String, CliError> {
    // The longest frame: two digits and a space for each byte, and line ends.
    const MAX: u64 = 256 << 10;
    let stdin = io::stdin();
    if stdin.is_terminal() {
        eprintln!("vswitch: reading the frame in hexadecimal from standard input; end with Ctrl-D");
    }
    let mut text = String::new();
    stdin.lock().take(MAX).read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn parse_hex(text: &str) -> Result<Vec<u8>, CliError> {
    let mut nibbles = Vec::new();
    for character in text.chars() {
        match character.to_digit(16) {
            Some(digit) => nibbles.push(digit as u8),
            None if character.is_whitespace() || character == ':' => {}
            None => {
                return Err(CliError::Usage(format!(
                    "{character:?} is no hexadecimal digit; give the frame's bytes as in \
                     5254 00aa 0001 or 52:54:00"
                )));
            }
        }
    }
    if nibbles.len() % 2 != 0 {
        let digits = nibbles.len();
        return Err(CliError::Usage(format!(
            "the frame has {digits} hexadecimal digits; each byte takes two"
        )));
    }
    Ok(nibbles
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
