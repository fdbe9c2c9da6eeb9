//! What the packet path needs of a frame and of the device layer. Two implementations exist: DPDK mbufs (crate
//! `ripvs-nic`) and in-memory frames for tests (`memory`).

/// A NIC port (a DPDK device), numbered from 0 as the daemon configured them. Not an interface: a VLAN has no port of
/// its own, a bond has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// One Ethernet frame, without FCS. Owned by exactly one holder; dropping it gives its memory back.
///
/// A frame may lie in several segments. All protocol headers that the packet path reads or rewrites lie in the first
/// one (`head`) after [`Frame::pull`].
pub trait Frame: Sized + Send {
    /// Length of the whole frame in bytes, all segments together.
    fn len(&self) -> usize;

    /// Whether the frame has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the first segment.
    fn head(&self) -> &[u8];

    /// The bytes of the first segment, for rewriting.
    fn head_mut(&mut self) -> &mut [u8];

    /// Makes the first segment hold at least `n` bytes (or the whole frame where it is shorter), moving bytes of later
    /// segments into it. Returns whether it does now; false only where the first segment has no room for them.
    fn pull(&mut self, n: usize) -> bool;

    /// Grows the frame by `n` bytes at its front, contents undefined. False, and unchanged, where there is no headroom.
    #[must_use]
    fn prepend(&mut self, n: usize) -> bool;

    /// Removes `n` bytes at the front, which must lie in the first segment; false, and unchanged, where they don't.
    #[must_use]
    fn trim_front(&mut self, n: usize) -> bool;

    /// Cuts the frame to `len` bytes (Ethernet padding, say); no effect where it is no longer than that.
    fn truncate(&mut self, len: usize);

    /// Copies bytes from `offset` on, across segments, into `to`. Returns how many there were.
    fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize;

    /// Overwrites bytes from `offset` on, across segments, with `from`. Returns how many fitted within the frame.
    fn write_at(&mut self, offset: usize, from: &[u8]) -> usize;
}

/// The device layer as the packet path sees it: where new frames come from and where finished ones go.
pub trait PacketIo {
    /// The frames of this device layer.
    type Frame: Frame;

    /// A new frame with these contents (in several segments where one is too small) and headroom of at least 128 bytes.
    /// `None` where memory ran out.
    fn alloc(&mut self, bytes: &[u8]) -> Option<Self::Frame>;

    /// Takes a frame for transmission by `port`. It leaves with the present burst; one that the device does not take is
    /// freed and counted by the implementation.
    fn transmit(&mut self, port: PortId, frame: Self::Frame);
}
