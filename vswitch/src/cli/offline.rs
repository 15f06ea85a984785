//! `replay` and `trace`: the switch's own pipeline, driven by captures.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::capture::{Capture, CaptureWriter, CapturedFrame};
use super::config::load_offline;
use super::{CliError, OfflineArgs, ReplayArgs};
use crate::pipeline::{Frame, Generation, Pipeline, PortId, Verdict};
use crate::reason::DropReason;

/// A switch without devices.
struct Offline {
    pipeline: Pipeline,
    /// The tenant's ports, then `uplink`; indexed by [`PortId`].
    names: Vec<String>,
    port: PortId,
    buffer: Vec<u8>,
    clock_ns: u64,
}

/// What became of one frame, in the words of the output.
struct Outcome {
    verdict: &'static str,
    reason: Option<DropReason>,
    icmp_error: bool,
    /// The port the frame leaves by.
    out: Option<PortId>,
}

impl From<(Verdict, PortId)> for Outcome {
    fn from((verdict, in_port): (Verdict, PortId)) -> Self {
        let (verdict, reason, icmp_error, out) = match verdict {
            Verdict::Forward(out) => ("forward", None, false, Some(out)),
            Verdict::Reply => ("reply", None, false, Some(in_port)),
            Verdict::Drop(reason) => ("drop", Some(reason), false, None),
            Verdict::DropWithError(reason) => ("drop", Some(reason), true, None),
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
            .map(|port| names[usize::from(port.0)].as_str())
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
        if let Some(port) = self.out {
            let name = &names[usize::from(port.0)];
            let _ = write!(text, " to {name}");
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
        let mut names: Vec<String> = config
            .ports
            .iter()
            .map(|port| port.name.to_string())
            .collect();
        if config.uplink.is_some() {
            names.push("uplink".to_owned());
        }
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
        let mut pipeline = Pipeline::new(Generation::build(&config, None));
        // Nobody answers in a capture: the next hops count as resolved.
        if let Some(uplink) = &config.uplink {
            pipeline.assume_next_hops(0, uplink.mac);
        }
        Ok(Self {
            pipeline,
            names,
            port,
            buffer: Vec::new(),
            clock_ns: 0,
        })
    }

    /// Lays the frame into the buffer as a device would, and advances the clock, which never
    /// goes back.
    fn receive(&mut self, frame: &CapturedFrame) {
        const TAILROOM: usize = 2048;
        self.buffer.clear();
        self.buffer.resize(Frame::HEADROOM, 0);
        self.buffer.extend_from_slice(&frame.bytes);
        self.buffer.resize(self.buffer.len() + TAILROOM, 0);
        self.clock_ns = self.clock_ns.max(frame.time_ns);
    }

    /// Decides on one frame; what is to be sent is then `self.buffer[range]`.
    fn process(&mut self, captured: &CapturedFrame) -> (Outcome, std::ops::Range<usize>) {
        self.receive(captured);
        let len = captured.bytes.len();
        let mut frame = Frame::new(&mut self.buffer, Frame::HEADROOM, len, None);
        let verdict = self.pipeline.process(self.clock_ns, self.port, &mut frame);
        let (start, len) = frame.position();
        (Outcome::from((verdict, self.port)), start..start + len)
    }
}

pub(super) fn replay(args: &ReplayArgs) -> Result<(), CliError> {
    let mut switch = Offline::new(&args.switch)?;
    let mut capture = Capture::open(&args.capture)?;
    let mut outputs = Outputs::new(args.out_dir.as_deref(), switch.names.len())?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut number, mut cut) = (0, 0_u64);
    while let Some(frame) = capture.next_frame()? {
        number += 1;
        cut += u64::from(frame.wire_len > frame.bytes.len());
        let (outcome, sent) = switch.process(&frame);
        if args.json {
            writeln!(out, "{}", outcome.json(number, &switch.names))?;
        } else {
            writeln!(out, "{number:>6}  {}", outcome.text(&switch.names))?;
        }
        let back = outcome.icmp_error.then_some(switch.port);
        if let Some(port) = outcome.out.or(back) {
            let name = &switch.names[usize::from(port.0)];
            outputs.write(port, name, switch.clock_ns, &switch.buffer[sent])?;
        }
    }
    out.flush()?;
    outputs.finish()?;
    if cut > 0 {
        eprintln!(
            "vswitch: {cut} frames are cut off in {}: they were judged as they are there; \
             capture with a larger snap length",
            args.capture.display()
        );
    }
    Ok(())
}

/// One capture for each port that frames leave by, created when the first does.
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
        let slot = &mut self.writers[usize::from(port.0)];
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
