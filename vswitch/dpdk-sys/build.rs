//! Generates the bindings, compiles the shim, and names the archives to link.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The release series whose structures and archives this crate knows.
const SERIES: &str = "22.11";

/// Drivers register in a constructor and are referenced by no name, so they are linked whole. The
/// list holds every driver that a switch can use, and no other is in its trusted base.
const DRIVERS: &[&str] = &[
    "bus_vdev",
    "bus_pci",
    "mempool_ring",
    "net_af_xdp",
    "net_memif",
    "net_ring",
    "net_null",
    "net_tap",
    "net_vhost",
    "net_virtio",
    "net_e1000",
    "net_ixgbe",
    "net_iavf",
];

/// The driver whose calls of `setsockopt` and `ioctl` are redirected to the shim; see there.
const REDIRECTED: &str = "net_af_packet";

/// Libraries that the drivers and the crate `dpdk` call, users before what they use.
const LIBRARIES: &[&str] = &[
    "common_iavf",
    "vhost",
    "gso",
    "security",
    "cryptodev",
    "dmadev",
    "hash",
    "rcu",
    "timer",
    "pci",
    "ethdev",
    "meter",
    "net",
    "mbuf",
    "mempool",
    "ring",
    "eal",
    "telemetry",
    "kvargs",
];

/// Third-party libraries with an archive, users before what they use.
const STATIC_DEPENDENCIES: &[&str] = &["xdp", "bpf", "elf", "z", "numa", "bsd", "md"];

fn main() -> ExitCode {
    for file in ["build.rs", "src/shim.c", "src/shim.h"] {
        println!("cargo:rerun-if-changed={file}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("dpdk-sys: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target != "x86_64" {
        return Err(format!(
            "the switch is for x86_64, not {target}: Debian's DPDK is built for -march=corei7"
        ));
    }
    let dpdk = Dpdk::find()?;
    dpdk.compile_shim()?;
    dpdk.generate_bindings()?;
    dpdk.link()
}

/// The installed DPDK.
struct Dpdk {
    flags: Vec<String>,
    archives: PathBuf,
    /// The output directory of this build.
    out: PathBuf,
}

impl Dpdk {
    fn find() -> Result<Self, String> {
        let library = pkg_config::Config::new()
            .cargo_metadata(false)
            .probe("libdpdk")
            .map_err(|error| {
                format!(
                    "libdpdk is not installed, or pkg-config does not find it. Run scripts/setup, \
                     or on Debian 12: apt-get install libdpdk-dev libclang-dev clang pkg-config. \
                     ({error})"
                )
            })?;
        if !library.version.starts_with(SERIES) {
            return Err(format!(
                "libdpdk is {}, but these bindings are for {SERIES}: structures differ between \
                 releases. Install Debian 12's libdpdk-dev, or set PKG_CONFIG_PATH to a {SERIES} \
                 build.",
                library.version
            ));
        }
        // The crate `pkg-config` knows include paths and definitions; `-march` and `-include`
        // are as much a part of DPDK's ABI, and are only in the raw flags.
        let output = Command::new("pkg-config")
            .args(["--cflags", "libdpdk"])
            .output()
            .map_err(|error| format!("cannot run pkg-config: {error}"))?;
        let flags = String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let archives = pkg_config::get_variable("libdpdk", "libdir")
            .map_err(|error| format!("libdpdk.pc names no libdir: {error}"))?
            .into();
        let out = env::var_os("OUT_DIR")
            .ok_or("OUT_DIR is not set: run cargo")?
            .into();
        Ok(Self {
            flags,
            archives,
            out,
        })
    }

    fn compile_shim(&self) -> Result<(), String> {
        let mut shim = cc::Build::new();
        shim.file("src/shim.c").opt_level(3).warnings(true);
        if cfg!(feature = "mlx5") {
            shim.define("DPDK_SYS_MLX5", None);
        }
        for flag in &self.flags {
            // DPDK's own headers are not ours to warn about.
            match flag.strip_prefix("-I") {
                Some(path) => shim.flag("-isystem").flag(path),
                None => shim.flag(flag),
            };
        }
        shim.cargo_metadata(false)
            .try_compile("dpdk_shim")
            .map_err(|error| {
                format!("the shim over DPDK's inline functions does not compile: {error}")
            })
    }

    fn generate_bindings(&self) -> Result<(), String> {
        bindgen::Builder::default()
            .header("src/shim.h")
            .clang_args(&self.flags)
            .allowlist_function("rte_[a-z0-9_]+_shim")
            .allowlist_function("rte_eal_(init|alarm_set|cleanup|get_runtime_dir)")
            .allowlist_function("rte_eal_hotplug_(add|remove)")
            .allowlist_function("rte_(strerror|version|get_tsc_hz)")
            .allowlist_function("rte_pktmbuf_(pool_create|free_bulk)")
            .allowlist_function("rte_mempool_(free|in_use_count|avail_count)")
            .allowlist_function("rte_eth_dev_(info_get|configure|start|stop|reset|close)")
            .allowlist_function("rte_(eth_dev|dev_event)_callback_(register|unregister)")
            .allowlist_function("rte_eth_dev_(get_port_by_name|set_mc_addr_list)")
            .allowlist_function("rte_eth_dev_(adjust_nb_rx_tx_desc|rx_intr_enable|rx_intr_disable)")
            .allowlist_function("rte_eth_dev_(rx_intr_ctl_q_get_fd|get_mtu)")
            .allowlist_function("rte_eth_(rx|tx)_queue_setup")
            .allowlist_function("rte_eth_(allmulticast_enable|link_get_nowait)")
            .allowlist_function("rte_eth_(macaddr_get|stats_get)")
            .allowlist_var("RTE_(PKTMBUF_HEADROOM|MBUF_F_RX_VLAN_STRIPPED)")
            .allowlist_var("RTE_ETH_RX_OFFLOAD_VLAN_STRIP_SHIM|AF_PACKET_SERVICE_TAG_LEN")
            .allowlist_var("RTE_(MAX_ETHPORTS|MEMPOOL_CACHE_MAX_SIZE|ETH_NAME_MAX_LEN)")
            // Only passed by pointer; without fields they cannot be misread.
            .opaque_type("rte_(mempool|device|eth_dev_portconf|eth_thresh)")
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .prepend_enum_name(false)
            .generate_comments(false)
            .layout_tests(true)
            .use_core()
            .generate()
            .map_err(|error| format!("bindgen cannot read DPDK's headers: {error}"))?
            .write_to_file(self.out.join("bindings.rs"))
            .map_err(|error| {
                format!(
                    "cannot write the bindings to {}: {error}",
                    self.out.display()
                )
            })
    }

    fn link(&self) -> Result<(), String> {
        println!("cargo:rustc-link-search=native={}", self.out.display());
        println!("cargo:rustc-link-search=native={}", self.archives.display());
        // Whole, because the redirected driver refers to it from behind.
        println!("cargo:rustc-link-lib=static:+whole-archive=dpdk_shim");
        let redirected = self.redirect()?;
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle={redirected}");
        for name in DRIVERS {
            self.archive(&format!("rte_{name}"))?;
            println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{name}");
        }
        if cfg!(feature = "mlx5") {
            self.link_mlx5()?;
        }
        if cfg!(feature = "pcap") {
            self.archive("rte_net_pcap")?;
            println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_net_pcap");
        }
        for name in LIBRARIES {
            self.archive(&format!("rte_{name}"))?;
            println!("cargo:rustc-link-lib=static:-bundle=rte_{name}");
        }
        for name in STATIC_DEPENDENCIES {
            self.archive(name)?;
            println!("cargo:rustc-link-lib=static:-bundle={name}");
        }
        if cfg!(feature = "mlx5") {
            for name in ["mlx5", "ibverbs", "nl-route-3", "nl-3"] {
                self.archive(name)?;
                println!("cargo:rustc-link-lib=static:-bundle={name}");
            }
        }
        if cfg!(feature = "pcap") {
            println!("cargo:rustc-link-lib=dylib=pcap");
        }
        Ok(())
    }

    fn link_mlx5(&self) -> Result<(), String> {
        for name in ["bus_auxiliary", "common_mlx5", "net_mlx5"] {
            self.archive(&format!("rte_{name}"))?;
            println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{name}");
        }
        Ok(())
    }

    /// Copies the driver's archive with these calls redirected to the shim; returns its name for
    /// the linker.
    fn redirect(&self) -> Result<&'static str, String> {
        self.archive(&format!("rte_{REDIRECTED}"))?;
        let from = self.archives.join(format!("librte_{REDIRECTED}.a"));
        let to = self.out.join("libdpdk_redirected.a");
        let status = Command::new(env::var_os("OBJCOPY").unwrap_or_else(|| "objcopy".into()))
            .arg("--redefine-sym=setsockopt=af_packet_setsockopt_shim")
            .arg("--redefine-sym=ioctl=af_packet_ioctl_shim")
            .args([from, to])
            .status();
        match status {
            Ok(status) if status.success() => Ok("dpdk_redirected"),
            failed => Err(format!(
                "objcopy cannot copy the archive of {REDIRECTED} ({failed:?}). On Debian 12: \
                 apt-get install binutils"
            )),
        }
    }

    /// Checks that the archive exists: the linker's message would not name the package.
    fn archive(&self, name: &str) -> Result<(), String> {
        let path = self.archives.join(format!("lib{name}.a"));
        if Path::new(&path).is_file() {
            return Ok(());
        }
        Err(format!(
            "{} is missing. Run scripts/setup, or on Debian 12: apt-get install libdpdk-dev \
             libnuma-dev libbsd-dev libxdp-dev libbpf-dev libelf-dev zlib1g-dev",
            path.display()
        ))
    }
}
