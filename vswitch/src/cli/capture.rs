//! Captures: reads pcap and pcapng files as one stream of frames with nanosecond timestamps, and
//! writes pcap files.
//!
//! The reader tolerates what capture tools get wrong (a frame longer than the file's snap length)
//! and any resolution of timestamps. It refuses link types other than Ethernet.

use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

/// One frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CapturedFrame {
    /// Nanoseconds since the capture's epoch.
    pub(super) time_ns: u64,
    /// The captured bytes.
    pub(super) bytes: Vec<u8>,
    /// The frame's length on the wire.
    pub(super) wire_len: usize,
}

/// A capture that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaptureError {
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{path}: neither a pcap nor a pcapng file; give a capture as tcpdump or Wireshark writes \
         it",
        path = path.display()
    )]
    Unknown { path: PathBuf },
    #[error(
        "{path}: frame {frame}: {source}; the frames before it were read",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        frame: u64,
        source: PcapError,
    },
    #[error(
        "{path}: frame {frame} is of link type {link:?}; only Ethernet captures can be replayed",
        path = path.display()
    )]
    LinkType {
        path: PathBuf,
        frame: u64,
        link: DataLink,
    },
}

type Input = io::Chain<Cursor<[u8; 4]>, Box<dyn Read>>;

enum Format {
    Pcap(PcapReader<Input>),
    PcapNg(Box<PcapNgReader<Input>>),
}

/// A capture being read.
pub(super) struct Capture {
    path: PathBuf,
    format: Format,
    frames: u64,
    last_ns: u64,
}

impl Capture {
    /// Opens a capture; `-` is standard input. Its first four bytes identify the format.
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        let input: io::Result<Box<dyn Read>> = if path == Path::new("-") {
            Ok(Box::new(io::stdin()))
        } else {
            File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
        };
        let input = input.map_err(|source| CaptureError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::read(path, input)
    }

    /// Reads a capture from `input`; errors name it as `path`.
    fn read(path: &Path, mut input: Box<dyn Read>) -> Result<Self, CaptureError> {
        let open = |source| CaptureError::Open {
            path: path.to_owned(),
            source,
        };
        let unknown = || CaptureError::Unknown {
            path: path.to_owned(),
        };
        let mut magic = [0; 4];
        input
            .read_exact(&mut magic)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => unknown(),
                _ => open(error),
            })?;
        let input = Cursor::new(magic).chain(input);
        let format = match u32::from_be_bytes(magic) {
            0x0a0d_0d0a => PcapNgReader::new(input).map(|reader| Format::PcapNg(Box::new(reader))),
            0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 => {
                PcapReader::new(input).map(Format::Pcap)
            }
            _ => return Err(unknown()),
        };
        let mut capture = Self {
            path: path.to_owned(),
            format: format.map_err(|_| unknown())?,
            frames: 0,
            last_ns: 0,
        };
        if let Format::Pcap(reader) = &capture.format {
            let link = reader.header().datalink;
            capture.frames = 1;
            capture.expect_ethernet(link)?;
            capture.frames = 0;
        }
        Ok(capture)
    }

    fn expect_ethernet(&self, link: DataLink) -> Result<(), CaptureError> {
        if link == DataLink::ETHERNET {
            return Ok(());
        }
        Err(CaptureError::LinkType {
            path: self.path.clone(),
            frame: self.frames,
            link,
        })
    }

    /// The next frame, or `None` at the end.
    pub(super) fn next_frame(&mut self) -> Result<Option<CapturedFrame>, CaptureError> {
        self.frames += 1;
        let (next, link) = match &mut self.format {
            Format::Pcap(reader) => (next_of_pcap(reader), DataLink::ETHERNET),
            Format::PcapNg(reader) => match next_of_pcapng(reader, self.last_ns) {
                Ok(Some((frame, link))) => (Ok(Some(frame)), link),
                Ok(None) => (Ok(None), DataLink::ETHERNET),
                Err(error) => (Err(error), DataLink::ETHERNET),
            },
        };
        let frame = next.map_err(|source| CaptureError::Damaged {
            path: self.path.clone(),
            frame: self.frames,
            source,
        })?;
        self.expect_ethernet(link)?;
        self.last_ns = frame.as_ref().map_or(self.last_ns, |frame| frame.time_ns);
        Ok(frame)
    }
}

fn next_of_pcap(reader: &mut PcapReader<Input>) -> Result<Option<CapturedFrame>, PcapError> {
    let nanos_per_unit = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    // The raw packet: the crate's checked one refuses frames longer than the snap length.
    let Some(packet) = reader.next_raw_packet().transpose()? else {
        return Ok(None);
    };
    Ok(Some(CapturedFrame {
        time_ns: u64::from(packet.ts_sec) * 1_000_000_000
            + u64::from(packet.ts_frac) * nanos_per_unit,
        wire_len: packet.orig_len as usize,
        bytes: packet.data.into_owned(),
    }))
}

fn next_of_pcapng(
    reader: &mut PcapNgReader<Input>,
    last_ns: u64,
) -> Result<Option<(CapturedFrame, DataLink)>, PcapError> {
    loop {
        let Some(block) = reader.next_block().transpose()? else {
            return Ok(None);
        };
        let (interface, units, wire_len, bytes) = match block {
            Block::EnhancedPacket(packet) => (
                packet.interface_id,
                // The crate labels the interface's units nanoseconds, whatever they are.
                Some(packet.timestamp.as_nanos()),
                packet.original_len,
                packet.data.into_owned(),
            ),
            Block::Packet(packet) => (
                u32::from(packet.interface_id),
                Some(u128::from(packet.timestamp)),
                packet.original_len,
                packet.data.into_owned(),
            ),
            Block::SimplePacket(packet) => (0, None, packet.original_len, packet.data.into_owned()),
            _ => continue,
        };
        let Some(description) = reader.interfaces().get(interface as usize) else {
            return Err(PcapError::InvalidInterfaceId(interface));
        };
        let frame = CapturedFrame {
            // A simple packet block has no timestamp: it gets that of the frame before it.
            time_ns: units.map_or(last_ns, |units| nanoseconds(units, resolution(description))),
            bytes,
            wire_len: wire_len as usize,
        };
        return Ok(Some((frame, description.linktype)));
    }
}

/// `if_tsresol`: a second is divided by this power of ten, or with the high bit by this power of
/// two.
fn resolution(description: &InterfaceDescriptionBlock<'_>) -> u8 {
    const MICROSECONDS: u8 = 6;
    description
        .options
        .iter()
        .find_map(|option| match option {
            InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
            _ => None,
        })
        .unwrap_or(MICROSECONDS)
}

fn nanoseconds(units: u128, resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let units_per_second = if resolution & 0x80 != 0 {
        1u128.checked_shl(exponent)
    } else {
        10u128.checked_pow(exponent)
    };
    units_per_second
        .filter(|units_per_second| *units_per_second > 0)
        .and_then(|units_per_second| Some(units.checked_mul(1_000_000_000)? / units_per_second))
        .and_then(|nanoseconds| u64::try_from(nanoseconds).ok())
        .unwrap_or(0)
}

/// A pcap file being written, with nanosecond timestamps.
pub(super) struct CaptureWriter {
    writer: PcapWriter<BufWriter<File>>,
}

impl CaptureWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let file = BufWriter::new(File::create(path)?);
        let writer = PcapWriter::with_header(file, header).map_err(io::Error::other)?;
        Ok(Self { writer })
    }

    pub(super) fn write(&mut self, time_ns: u64, bytes: &[u8]) -> io::Result<()> {
        let packet = PcapPacket::new(Duration::from_nanos(time_ns), bytes.len() as u32, bytes);
        self.writer
            .write_packet(&packet)
            .map(|_| ())
            .map_err(io::Error::other)
    }

    /// Flushes the file.
    pub(super) fn finish(self) -> io::Result<()> {
        self.writer.into_writer().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Coverage-guided by `scripts/fuzz`; as an ordinary test it replays its corpus. Any input is
    /// frames and at most one error, and ends.
    #[test]
    fn capture_is_read_or_refused() {
        bolero::check!()
            .with_iterations(0)
            .for_each(|input: &[u8]| {
                let reader = Box::new(Cursor::new(input.to_vec()));
                let Ok(mut capture) = Capture::read(Path::new("fuzz.pcap"), reader) else {
                    return;
                };
                // A frame's record takes 16 bytes at least.
                for _ in 0..=input.len() / 16 {
                    match capture.next_frame() {
                        Ok(Some(frame)) => assert!(frame.bytes.len() <= input.len()),
                        Ok(None) | Err(_) => return,
                    }
                }
                panic!("more frames than the input can hold");
            });
    }

    #[test]
    fn timestamps_convert_to_nanoseconds() {
        assert_eq!(nanoseconds(1_500_000, 6), 1_500_000_000);
        assert_eq!(nanoseconds(7, 9), 7);
        assert_eq!(nanoseconds(7_999, 12), 7);
        assert_eq!(nanoseconds(3, 0), 3_000_000_000);
        assert_eq!(nanoseconds(3 << 20, 0x80 | 20), 3_000_000_000);
        // Impossible resolutions give zero, not a panic.
        assert_eq!(nanoseconds(1, 127), 0);
        assert_eq!(nanoseconds(1, 0xff), 0);
    }
}
