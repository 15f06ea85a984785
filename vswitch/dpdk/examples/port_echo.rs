//! Measures a driver on a veth pair, for the comparison of decision 0002.
//!
//! ```text
//! ip link add near type veth peer name far
//! ip link set near up; ip link set far up
//! cargo run --release --example port_echo -- af_packet|af_xdp near far [SECONDS]
//! ```
//!
//! CPU 0 runs the port under test on `near`; CPU 1 generates and receives on `far`, always by
//! `net_af_packet`. Frames have 64 bytes. Three loads: `sink` receives frames, `echo` sends each
//! back, `wake` sleeps on the port's descriptor until one frame comes, 500 times.
//!
//! Cycles are CPU 0's, per frame, from the begin of a receive call that returned frames to the end
//! of their handling, the kernel's work included: the median over all bursts, which excludes other
//! load on the machine. The kernel receives a frame on the generator's CPU, so that work shows in
//! the rate only.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dpdk::{Burst, Eal, EalOptions, Mempool, Port, PortOptions, cycles};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tenant_config::{Device, Memory};

const FRAME_BYTES: usize = 64;
const WAKE_UPS: usize = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [driver, near, far, rest @ ..] = arguments.as_slice() else {
        return Err("usage: port_echo af_packet|af_xdp NEAR FAR [SECONDS]".into());
    };
    let interface = near.clone();
    let near = match driver.as_str() {
        "af_packet" => Device::AfPacket { interface },
        "af_xdp" => Device::AfXdp { interface },
        _ => return Err(format!("{driver:?} is neither af_packet nor af_xdp").into()),
    };
    let interface = far.clone();
    let far = Device::AfPacket { interface };
    let seconds = rest.first().map_or(Ok(2), |text| text.parse())?;
    let memory = Memory {
        mib: 64,
        hugepages: false,
    };
    let began = Instant::now();
    let eal = Eal::start(&EalOptions {
        memory,
        cpu: 0,
        name: "port-echo".into(),
        pci: Vec::new(),
        one_file: false,
    })?;
    let eal_ms = began.elapsed().as_secs_f64() * 1e3;
    let options = PortOptions::default();
    let pool = Mempool::for_devices(&eal, [&near, &far], &options)?;
    let began = Instant::now();
    let mut port = Port::open(&eal, "near", &near, &pool, &options)?;
    let open_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut generator = Port::open(&eal, "far", &far, &pool, &options)?;
    let time = Duration::from_secs(seconds);
    let run = Run::of(&mut port, &mut generator, &pool, time);
    println!("{driver} eal_ms={eal_ms:.1} open_ms={open_ms:.1} {run}");
    Ok(())
}

/// The results of one driver.
#[derive(Debug, Clone, Copy)]
struct Run {
    sink_mpps: f64,
    sink_cycles: f64,
    echo_mpps: f64,
    echo_cycles: f64,
    wake_median_us: f64,
    wake_p99_us: f64,
}

impl Run {
    fn of(port: &mut Port, generator: &mut Port, pool: &Mempool, time: Duration) -> Self {
        let (sink_mpps, sink_cycles) = forward(port, generator, pool, time, false);
        let (echo_mpps, echo_cycles) = forward(port, generator, pool, time, true);
        let (wake_median_us, wake_p99_us) = wake(port, generator, pool);
        Self {
            sink_mpps,
            sink_cycles,
            echo_mpps,
            echo_cycles,
            wake_median_us,
            wake_p99_us,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sink_mpps,
            sink_cycles,
            echo_mpps,
            echo_cycles,
            wake_median_us,
            wake_p99_us,
        } = self;
        write!(
            out,
            "sink_mpps={sink_mpps:.3} sink_cycles={sink_cycles} echo_mpps={echo_mpps:.3} \
             echo_cycles={echo_cycles} wake_median_us={wake_median_us:.1} \
             wake_p99_us={wake_p99_us:.1}"
        )
    }
}

/// Millions of frames a second that the port received (or sent back), and cycles per frame.
fn forward(
    port: &mut Port,
    generator: &mut Port,
    pool: &Mempool,
    time: Duration,
    echo: bool,
) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    let mut frames = 0;
    // Bursts by cycles per frame, 16 to a bucket.
    let mut bursts = vec![0_u32; 1 << 14];
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| generate(generator, pool, &stop));
        let mut burst = Burst::new();
        while began.elapsed() < time {
            let before = cycles();
            if port.rx(&mut burst) == 0 {
                continue;
            }
            let taken = burst.len();
            frames += if echo { port.tx(&mut burst) } else { taken };
            burst.clear();
            let each = (cycles() - before) as usize / taken;
            bursts[(each / 16).min((1 << 14) - 1)] += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seconds = began.elapsed().as_secs_f64();
    drain(port);
    drain(generator);
    let mut half = bursts.iter().sum::<u32>() / 2;
    let median = bursts.iter().position(|&count| {
        half = half.saturating_sub(count);
        half == 0
    });
    (
        frames as f64 / seconds / 1e6,
        median.unwrap_or_default() as f64 * 16.0,
    )
}

/// Sends as fast as the interface takes frames, and discards what comes back.
fn generate(port: &mut Port, pool: &Mempool, stop: &AtomicBool) {
    run_on_cpu_1();
    let frame = [0x5a; FRAME_BYTES];
    let (mut out, mut back) = (Burst::new(), Burst::new());
    while !stop.load(Ordering::Relaxed) {
        while let Some(mbuf) = (!out.is_full()).then(|| pool.alloc_with(&frame)).flatten() {
            let _ = out.push(mbuf);
        }
        port.tx(&mut out);
        port.rx(&mut back);
        back.clear();
    }
}

/// Microseconds from just before a frame is sent to an idle port until its thread runs: median and
/// 99th percentile.
fn wake(port: &mut Port, generator: &mut Port, pool: &Mempool) -> (f64, f64) {
    let origin = Instant::now();
    // The sender's clock when it sent; 0 when the frame has been received.
    let sent_ns = AtomicU64::new(0);
    let mut delays = Vec::with_capacity(WAKE_UPS);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run_on_cpu_1();
            let mut burst = Burst::new();
            for _ in 0..WAKE_UPS {
                while sent_ns.load(Ordering::Acquire) != 0 {
                    std::hint::spin_loop();
                }
                // Until the other CPU is idle.
                std::thread::sleep(Duration::from_millis(1));
                let frame = pool.alloc_with(&[0x5a; FRAME_BYTES]).expect("an mbuf");
                let _ = burst.push(frame);
                let now = origin.elapsed().as_nanos() as u64;
                sent_ns.store(now, Ordering::Release);
                generator.tx(&mut burst);
            }
        });
        let mut burst = Burst::new();
        while delays.len() < WAKE_UPS {
            port.arm();
            let fd = port.wait_fd().expect("both drivers have a socket");
            let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(1000_u16));
            let awake_ns = origin.elapsed().as_nanos() as u64;
            port.disarm();
            if port.rx(&mut burst) > 0 {
                let delay_ns = awake_ns - sent_ns.load(Ordering::Acquire);
                delays.push(delay_ns as f64 / 1e3);
                burst.clear();
                sent_ns.store(0, Ordering::Release);
            }
        }
    });
    delays.sort_by(f64::total_cmp);
    (delays[WAKE_UPS / 2], delays[WAKE_UPS * 99 / 100])
}

/// Frees frames still under way.
fn drain(port: &mut Port) {
    let mut burst = Burst::new();
    let quiet = Instant::now() + Duration::from_millis(50);
    while port.rx(&mut burst) > 0 || Instant::now() < quiet {
        burst.clear();
    }
}

fn run_on_cpu_1() {
    let mut cpus = CpuSet::new();
    // With one CPU, the results show it.
    if cpus.set(1).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
    }
}
