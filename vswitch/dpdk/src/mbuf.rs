//! Packet memory: pools, the buffer of a frame (mbuf), and bursts of frames.

use std::ffi::{CString, c_int};
use std::fmt;
use std::mem::{self, MaybeUninit};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys::{rte_mbuf, rte_mempool};
use tenant_config::{Device, VlanId};

use crate::{DpdkError, Eal, PortOptions, last_error};
use packet::{Buffer, Frame};

/// Room in front of a received frame.
const HEADROOM: usize = dpdk_sys::RTE_PKTMBUF_HEADROOM as usize;
const _: () = assert!(HEADROOM >= Frame::HEADROOM, "an answer must fit in front");

/// Mbufs in the lcore's cache.
const CACHE: u32 = 256;

/// A pool of mbufs of one size. A handle; ports and the worker share it.
#[derive(Debug, Clone)]
pub struct Mempool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    raw: NonNull<rte_mempool>,
    capacity: u32,
    room: u16,
    eal: Eal,
}

// SAFETY: a mempool's ring is multi-producer and multi-consumer. Its caches belong to lcores, of
// which this process has one; other threads use the ring only.
unsafe impl Send for Pool {}
// SAFETY: as above; every operation of ours on a shared `Pool` is one DPDK allows from any thread.
unsafe impl Sync for Pool {}

impl Mempool {
    /// A pool that suffices for `devices` with these options: their rings, the lcore's cache, and
    /// some bursts being handled. A buffer holds a whole frame of `options.mtu` with headroom.
    ///
    /// # Errors
    /// [`DpdkError::PacketMemory`] if it does not fit into the EAL's memory.
    pub fn for_devices<'a>(
        eal: &Eal,
        devices: impl IntoIterator<Item = &'a Device>,
        options: &PortOptions,
    ) -> Result<Self, DpdkError> {
        let held: u32 = devices
            .into_iter()
            .map(|device| crate::attachment::frames_held(device, options))
            .sum();
        Self::new(
            eal,
            held + 2 * CACHE + 16 * Burst::CAPACITY as u32,
            options.mtu,
        )
    }

    /// A pool of `frames` mbufs, each with room for an IP packet of `mtu` bytes.
    ///
    /// # Errors
    /// [`DpdkError::PacketMemory`] if it does not fit into the EAL's memory.
    pub fn new(eal: &Eal, frames: u32, mtu: u16) -> Result<Self, DpdkError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let room = crate::attachment::frame_room(mtu) + HEADROOM as u16;
        let name = format!("frames{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).expect("no NUL in it");
        let cache = CACHE.min(frames * 2 / 3);
        const ANY_NUMA_NODE: c_int = -1;
        // SAFETY: the name is a C string that DPDK copies; the other arguments are plain numbers.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), frames, cache, 0, room, ANY_NUMA_NODE)
        };
        let Some(raw) = NonNull::new(raw) else {
            let bytes = mem::size_of::<rte_mbuf>() as u32 + u32::from(room) + 64;
            return Err(DpdkError::PacketMemory {
                frames,
                bytes,
                mib: (u64::from(frames) * u64::from(bytes) * 5 / 4).div_ceil(1 << 20) + 4,
                cause: last_error(),
            });
        };
        let eal = eal.clone();
        Ok(Self(Arc::new(Pool {
            raw,
            capacity: frames,
            room,
            eal,
        })))
    }

    /// An empty mbuf; `None` if all are in use.
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as `self`; the shim returns an mbuf that we then own, or
        // null.
        NonNull::new(unsafe { dpdk_sys::rte_pktmbuf_alloc_shim(self.raw()) }).map(Mbuf)
    }

    /// An mbuf that holds `bytes`; `None` if all are in use or `bytes` does not fit.
    pub fn alloc_with(&self, bytes: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc()?;
        mbuf.buffer_mut()
            .get_mut(HEADROOM..HEADROOM + bytes.len())?
            .copy_from_slice(bytes);
        mbuf.set_position((HEADROOM, bytes.len()));
        Some(mbuf)
    }

    /// Adds `count` empty mbufs to the burst, or none if they do not fit or too few are free.
    #[inline]
    pub fn fill(&self, burst: &mut Burst, count: usize) {
        if count == 0 || count > Burst::CAPACITY - burst.len() {
            return;
        }
        burst.fill(|mbufs, _| {
            // SAFETY: the pool lives as long as `self`, and there is room for `count` pointers;
            // either all are written or none.
            let code =
                unsafe { dpdk_sys::rte_pktmbuf_alloc_bulk_shim(self.raw(), mbufs, count as u32) };
            if code == 0 { count as u16 } else { 0 }
        });
    }

    /// All mbufs of the pool, free or not.
    pub fn capacity(&self) -> u32 {
        self.0.capacity
    }

    /// Free mbufs. Slow: not for the packet path.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw()) }
    }

    /// Bytes of one mbuf's buffer, headroom included.
    pub fn room(&self) -> u16 {
        self.0.room
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.0.raw.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pool exists; ports, which fill their rings from it, hold a handle of it.
        let in_use = unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) };
        if in_use == 0 {
            // SAFETY: no mbuf is in use, so nothing points into the pool; this was its last handle.
            unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
        } else {
            self.eal.abandon();
        }
    }
}

/// One frame in packet memory. Owned: dropping it returns it to its pool.
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an `Mbuf` is the only reference to its mbuf, and any thread may free it (see `Pool`).
unsafe impl Send for Mbuf {}

impl Mbuf {
    fn raw(&self) -> &rte_mbuf {
        // SAFETY: `self` owns the mbuf, and its pool is not freed while the mbuf is in use.
        unsafe { self.0.as_ref() }
    }

    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in `raw`; `&mut self` makes it the only reference.
        unsafe { self.0.as_mut() }
    }

    /// The other mbuf, with the same frame in the same place; `None` if it has no room.
    fn copied_into(&self, mut copy: Self) -> Option<Self> {
        let raw = self.raw();
        let (start, len) = (usize::from(raw.data_off), usize::from(raw.data_len));
        let room = copy.buffer_mut().get_mut(start..start + len)?;
        room.copy_from_slice(self.bytes());
        copy.set_position((start, len));
        Some(copy)
    }

    /// The frame's bytes; only the first segment of a frame in several.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: DPDK and `set_position` keep `data_off + data_len` within `buf_len`; the memory
        // was mapped zeroed, so every byte is initialised.
        unsafe {
            let start = raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off));
            slice::from_raw_parts(start, usize::from(raw.data_len))
        }
    }

    /// The same, mutable.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = (
            usize::from(self.raw().data_off),
            usize::from(self.raw().data_len),
        );
        &mut self.buffer_mut()[start..start + len]
    }

    /// Makes it a frame of `len` bytes with the usual headroom, and returns them for writing. They
    /// still have their old content.
    ///
    /// # Panics
    /// If the buffer is shorter.
    #[inline]
    pub fn reset(&mut self, len: usize) -> &mut [u8] {
        self.set_position((HEADROOM, len));
        self.bytes_mut()
    }

    /// The TCI of the VLAN tag that the device or its driver has stripped from the bytes.
    #[inline]
    pub fn stripped_tag(&self) -> Option<u16> {
        let raw = self.raw();
        let stripped = raw.ol_flags & u64::from(dpdk_sys::RTE_MBUF_F_RX_VLAN_STRIPPED) != 0;
        stripped.then_some(raw.vlan_tci)
    }

    /// Puts a stripped 802.1ad tag back behind the addresses, which are all that the socket has
    /// kept of such a frame: `AF_PACKET_SERVICE_TAG_LEN`.
    #[inline]
    pub(crate) fn restore_service_tag(&mut self) {
        const KEPT: usize = dpdk_sys::AF_PACKET_SERVICE_TAG_LEN as usize;
        if let Some(control) = self.stripped_tag()
            && usize::from(self.raw().data_len) == KEPT
        {
            let start = usize::from(self.raw().data_off);
            self.set_position((start, KEPT + 4));
            let [hi, lo] = control.to_be_bytes();
            self.bytes_mut()[KEPT..].copy_from_slice(&[0x88, 0xa8, hi, lo]);
        }
    }

    /// Forgets a stripped tag of this VLAN: the NIC added it.
    #[inline]
    pub(crate) fn forget_tag(&mut self, vlan: VlanId) {
        const VID: u16 = 0x0fff;
        if self
            .stripped_tag()
            .is_some_and(|control| control & VID == vlan.get())
        {
            self.raw_mut().ol_flags &= !u64::from(dpdk_sys::RTE_MBUF_F_RX_VLAN_STRIPPED);
        }
    }

    /// Makes `tail` the frame's second segment, as a device does where a frame is longer than a
    /// buffer.
    ///
    /// # Panics
    /// If one of them has several segments already.
    pub fn chain(&mut self, tail: Self) {
        assert!(
            self.segments() == 1 && tail.segments() == 1,
            "one segment each"
        );
        let tail = mem::ManuallyDrop::new(tail);
        let (next, len) = (tail.0.as_ptr(), tail.raw().pkt_len);
        let raw = self.raw_mut();
        raw.next = next;
        raw.nb_segs = 2;
        raw.pkt_len += len;
    }

    /// Segments; 1 unless the device received more than one buffer holds.
    #[inline]
    pub fn segments(&self) -> u16 {
        self.raw().nb_segs
    }

    /// Sets the frame to `len` bytes of the buffer from `start` on, without offloads or a stripped
    /// tag.
    ///
    /// # Panics
    /// If that is outside the buffer, or the mbuf has several segments.
    #[inline]
    fn set_position(&mut self, (start, len): (usize, usize)) {
        let raw = self.raw_mut();
        let room = usize::from(raw.buf_len);
        assert!(
            raw.nb_segs == 1 && start <= room && len <= room - start,
            "frame outside its buffer"
        );
        // Both fit: `buf_len` is 16 bits wide.
        raw.data_off = start as u16;
        raw.data_len = len as u16;
        raw.pkt_len = len as u32;
        raw.ol_flags = 0;
    }

    /// The whole buffer, headroom included.
    #[inline]
    fn buffer_mut(&mut self) -> &mut [u8] {
        let raw = self.raw_mut();
        // SAFETY: `buf_addr` points to `buf_len` bytes that belong to this mbuf alone (no linked
        // driver attaches one buffer to two mbufs), mapped zeroed and so initialised.
        unsafe { slice::from_raw_parts_mut(raw.buf_addr.cast(), usize::from(raw.buf_len)) }
    }
}

impl Buffer for Mbuf {
    const COPIES: bool = true;

    /// From the pool that the frame's own buffer is of: [`Spare::CAPACITY`] at once, if there are
    /// as many.
    fn copies(&self, count: usize, mut each: impl FnMut(Option<Self>)) -> u64 {
        let raw = self.raw();
        let whole = raw.nb_segs == 1;
        let (mut left, mut allocations) = (count, 0);
        while left > 0 {
            let step = left.min(Spare::CAPACITY);
            let mut spare = Spare::new();
            if whole {
                // SAFETY: an mbuf of a direct buffer, as all of ours are, names its pool, which is
                // not freed while one of its mbufs is in use: `self` is, until the end.
                allocations += unsafe { spare.fill(raw.pool, step) };
            }
            for _ in 0..step {
                each(spare.take().and_then(|copy| self.copied_into(copy)));
            }
            left -= step;
        }
        allocations
    }

    #[inline(always)]
    fn plain(&mut self) -> Option<&mut [u8]> {
        let raw = self.raw_mut();
        let stripped = raw.ol_flags & u64::from(dpdk_sys::RTE_MBUF_F_RX_VLAN_STRIPPED) != 0;
        if raw.nb_segs != 1 || stripped {
            return None;
        }
        // SAFETY: as in `bytes` and `buffer_mut`; `&mut self` makes it the only reference.
        unsafe {
            let start = raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off));
            let len = usize::from(raw.data_len);
            Some(slice::from_raw_parts_mut(start, len))
        }
    }

    /// Also removes offloads.
    #[inline(always)]
    fn keep(&mut self, begin: usize, len: usize) {
        let raw = self.raw_mut();
        // Both fit: `data_len` is 16 bits wide.
        let begin = begin.min(usize::from(raw.data_len)) as u16;
        let len = len.min(usize::from(raw.data_len - begin)) as u16;
        raw.data_off += begin;
        raw.data_len = len;
        raw.pkt_len = len.into();
        raw.ol_flags = 0;
    }

    /// Also removes offloads and a stripped tag.
    #[inline(always)]
    fn change<R>(&mut self, change: impl FnOnce(&mut Frame<'_>) -> R) -> Option<R> {
        let raw = self.raw();
        if raw.nb_segs != 1 {
            return None;
        }
        let (start, len) = (usize::from(raw.data_off), usize::from(raw.data_len));
        let tag = self.stripped_tag();
        let mut frame = Frame::new(self.buffer_mut(), start, len, tag);
        let result = change(&mut frame);
        let position = frame.position();
        self.set_position(position);
        Some(result)
    }

    #[inline]
    fn frame_len(&self) -> usize {
        self.raw().pkt_len as usize
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mbuf and does not exist after this.
        unsafe { dpdk_sys::rte_pktmbuf_free_shim(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mbuf")
            .field("segments", &self.segments())
            .field("stripped_tag", &self.stripped_tag())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// Empty mbufs for the copies of a frame.
struct Spare {
    /// The first `len` are initialised.
    mbufs: [MaybeUninit<Mbuf>; Self::CAPACITY],
    len: usize,
}

impl Spare {
    const CAPACITY: usize = 64;

    const fn new() -> Self {
        Self {
            mbufs: [const { MaybeUninit::uninit() }; Self::CAPACITY],
            len: 0,
        }
    }

    /// Takes `count` mbufs out of a pool at once; if it has less, those that it has, one by one.
    /// Returns how many allocations that took.
    ///
    /// # Safety
    /// The pool lives as long as the mbufs.
    unsafe fn fill(&mut self, pool: *mut rte_mempool, count: usize) -> u64 {
        let count = count.min(Self::CAPACITY - self.len);
        let start = ptr::from_mut(&mut self.mbufs[self.len..]).cast();
        // SAFETY: `Mbuf` is `repr(transparent)`, and there is room for `count` of them; either all
        // are written or none.
        let code = unsafe { dpdk_sys::rte_pktmbuf_alloc_bulk_shim(pool, start, count as u32) };
        if code == 0 {
            self.len += count;
            return 1;
        }
        let mut allocations = 1;
        for slot in self.mbufs.iter_mut().skip(self.len).take(count) {
            allocations += 1;
            // SAFETY: the shim returns an mbuf that we then own, or null.
            let mbuf = unsafe { dpdk_sys::rte_pktmbuf_alloc_shim(pool) };
            let Some(mbuf) = NonNull::new(mbuf) else {
                break;
            };
            slot.write(Mbuf(mbuf));
            self.len += 1;
        }
        allocations
    }

    fn take(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the first `len` were initialised, and this one is no longer among them.
        Some(unsafe { self.mbufs[self.len].assume_init_read() })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

/// Up to [`Burst::CAPACITY`] frames, in order, without allocation.
pub struct Burst {
    /// The first `len` are initialised.
    mbufs: [MaybeUninit<Mbuf>; Self::CAPACITY],
    len: usize,
}

impl Burst {
    /// The frames of one receive or transmit call.
    pub const CAPACITY: usize = 32;

    /// An empty burst.
    pub const fn new() -> Self {
        Self {
            mbufs: [const { MaybeUninit::uninit() }; Self::CAPACITY],
            len: 0,
        }
    }

    /// The number of frames.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no frames.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether [`Self::push`] would return the frame.
    #[inline]
    pub const fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    /// Adds a frame at the end.
    ///
    /// # Errors
    /// The frame itself, if the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        match self.mbufs.get_mut(self.len) {
            Some(slot) => {
                slot.write(mbuf);
                self.len += 1;
                Ok(())
            }
            None => Err(mbuf),
        }
    }

    /// Takes the frames out, first to last; dropping the iterator frees the rest.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let end = mem::take(&mut self.len);
        Drain {
            burst: self,
            next: 0,
            end,
        }
    }

    /// Frees every frame.
    pub fn clear(&mut self) {
        let len = mem::take(&mut self.len);
        if len > 0 {
            // SAFETY: the first `len` are mbufs that this burst owned until now.
            unsafe { dpdk_sys::rte_pktmbuf_free_bulk(self.raw(0), len as u32) };
        }
    }

    /// Prefetches the first bytes of every frame into the CPU's cache.
    #[inline]
    pub fn prefetch(&self) {
        for mbuf in self.iter() {
            prefetch(mbuf.bytes().as_ptr());
        }
    }

    /// The frames as a slice.
    #[inline]
    pub fn as_slice(&self) -> &[Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { slice::from_raw_parts(self.mbufs.as_ptr().cast(), self.len) }
    }

    /// The frames as a mutable slice.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().cast(), self.len) }
    }

    /// The frames, first to last.
    #[inline]
    pub fn iter(&self) -> slice::Iter<'_, Mbuf> {
        self.as_slice().iter()
    }

    /// The frames, first to last.
    #[inline]
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, Mbuf> {
        self.as_mut_slice().iter_mut()
    }

    /// Lets `receive` write mbuf pointers after the frames; it returns how many.
    #[inline]
    pub(crate) fn fill(&mut self, receive: impl FnOnce(*mut *mut rte_mbuf, u16) -> u16) -> usize {
        let spare = Self::CAPACITY - self.len;
        let start = self.raw(self.len);
        let received = usize::from(receive(start, spare as u16)).min(spare);
        self.len += received;
        received
    }

    /// Lets `send` take frames from the front; it returns how many. The rest move up.
    #[inline]
    pub(crate) fn take_front(
        &mut self,
        send: impl FnOnce(*mut *mut rte_mbuf, u16) -> u16,
    ) -> usize {
        let sent = usize::from(send(self.raw(0), self.len as u16)).min(self.len);
        if sent < self.len {
            self.mbufs[..self.len].rotate_left(sent);
        }
        self.len -= sent;
        sent
    }

    /// DPDK's view: an array of pointers. `Mbuf` is `repr(transparent)`.
    #[inline]
    fn raw(&mut self, index: usize) -> *mut *mut rte_mbuf {
        ptr::from_mut(&mut self.mbufs[index..]).cast()
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

/// The iterator of [`Burst::drain`].
#[derive(Debug)]
pub struct Drain<'a> {
    burst: &'a mut Burst,
    next: usize,
    end: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: `next..end` are initialised, and each is read once: the burst's length is already
        // 0.
        let mbuf = unsafe { self.burst.mbufs[self.next].assume_init_read() };
        self.next += 1;
        Some(mbuf)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[inline]
fn prefetch(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch of any address has no visible effect.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}
