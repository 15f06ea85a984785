//! Coverage-guided fuzzing of the pipeline: `scripts/fuzz`. As an ordinary test, each target
//! replays its corpus in `__fuzz__`.
//!
//! Every frame goes to the fast path, to the general path and to the model, as in
//! `filter_oracle.rs`; what differs is who chooses.

mod oracle;

use oracle::configs;
use oracle::frames;
use oracle::generate::{self, Choices};
use oracle::trial::{SECOND_NS, Trial};

/// The configuration that `choice` picks, ready to be tried. Next hops are known on every other
/// choice.
fn trial(choice: u8) -> Trial {
    let configs: Vec<_> = configs::all()
        .into_iter()
        .chain(configs::tunnels())
        .collect();
    let (_, config) = &configs[usize::from(choice >> 1) % configs.len()];
    let mut trial = Trial::new(config);
    if choice & 1 != 0 {
        trial.resolve(0);
    }
    trial
}

/// One raw frame, from a VM, from the underlay or from a tunnel's peer: a byte for the
/// configuration, one for the side, for the tag that the NIC removed and for whether an IPv4
/// checksum is made right, and the frame.
#[test]
fn raw_frame_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let [choice, from, bytes @ ..] = input else {
                return;
            };
            let mut trial = trial(*choice);
            let config = trial.config();
            let sides = config.ports.len() + usize::from(config.uplink.is_some());
            let tag = (from & 0x80 != 0).then_some(u16::from(from & 0x70) >> 4);
            let mut bytes = bytes.to_vec();
            if from & 0x08 != 0 && bytes.len() >= 34 {
                frames::set_ipv4_checksum(&mut bytes[14..]);
            }
            let from = usize::from(from & 0x07) % sides;
            if let Err(disagreement) = trial.send(SECOND_NS, from, &bytes, tag) {
                panic!("{disagreement}");
            }
        });
}

/// Frames that are mostly valid, the clock, and restarts of the configuration: a byte for the
/// configuration, and chance.
#[test]
fn sequence_agrees_with_model() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let Some((choice, chance)) = input.split_first() else {
                return;
            };
            let mut trial = trial(*choice);
            let config = trial.config().clone();
            let mut choices = Choices::new(chance);
            let mut now_ns = 0;
            while !choices.is_spent() {
                now_ns += SECOND_NS * choices.pick(&[1, 1, 1, 1, 30, 600]);
                match choices.below(8) {
                    0 => {
                        drop(trial.poll(now_ns));
                        // The next hops answer what the clock asks them; the model has no such
                        // clock.
                        trial.resolve(now_ns);
                    }
                    1 => trial.reload(),
                    _ => {
                        let sent = generate::frame(&mut choices, &config);
                        if let Err(disagreement) =
                            trial.send(now_ns, sent.from, &sent.bytes, sent.tag)
                        {
                            panic!("{disagreement}");
                        }
                    }
                }
            }
        });
}
