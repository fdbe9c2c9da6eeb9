//! All datagrams that fragments are missing of, found by their key, bounded in number and memory, given up in time
//! (`inet_fragment.c`, `ip_fragment.c`, `nf_conntrack_reasm.c`).

use hashbrown::{hash_table::Entry, HashMap, HashTable};
use ripvs_arch::FlowHash;
use ripvs_packet::parse::{flags, Family, L3Info};
use ripvs_packet::{ipv6, Frame, PacketIo};

use super::headers::{build, ungathered};
use super::queue::{Place, Queue, Queued};
use super::{FragDrop, Pieces};
use crate::types::{IfaceId, Time};

/// Bounds and times. Each worker has its own reassembler, so the bounds are per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a datagram is waited for from its first frame on, in seconds (`net.ipv4.ipfrag_time`).
    pub v4_seconds: u32,
    /// The same for IPv6 (`net.netfilter.nf_conntrack_frag6_timeout`).
    pub v6_seconds: u32,
    /// How many fragments of one IPv4 source may come between two of one datagram before what came of that is given up,
    /// because its identification may have been used again; 0 for any number (`net.ipv4.ipfrag_max_dist`).
    pub max_distance: u32,
    /// Memory for each family's fragments in bytes, counted as whole buffers; once it is passed, fragments are dropped
    /// (`net.ipv4.ipfrag_high_thresh`, `net.netfilter.nf_conntrack_frag6_high_thresh`).
    pub max_bytes: usize,
    /// How many datagrams of both families are waited for at once.
    pub max_datagrams: usize,
}

impl Default for Settings {
    /// The kernel's defaults, and room for as many datagrams as frames fit into the memory.
    fn default() -> Settings {
        Settings {
            v4_seconds: 30,
            v6_seconds: 60,
            max_distance: 64,
            max_bytes: 4 << 20,
            max_datagrams: 4096,
        }
    }
}

/// A datagram put together.
#[derive(Debug)]
pub struct Datagram<F> {
    /// The datagram in one frame, with everything before the payload as the first fragment had it, lengths and flags
    /// adjusted; the IPv6 fragment header is gone.
    pub frame: F,
    /// How it came.
    pub pieces: Pieces,
    /// How many frames it came in beyond one: they end here.
    pub absorbed: usize,
}

/// Why a packet was not gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UngatheredReason {
    /// It isn't a fragment, or is a jumbogram, which can be none.
    NotAFragment,
    /// More fragments are to follow, but its length is no multiple of eight. If it is for the host, the sender is told:
    /// ICMPv6 parameter problem, code 0, pointer to the payload length (4).
    BadLength,
    /// It is the first, but does not hold all headers up to the transport's (RFC 7112). If it is for the host, the sender
    /// is told: ICMPv6 parameter problem, code 3, pointer 0.
    IncompleteHeaders,
}

/// What became of a fragment.
#[derive(Debug)]
pub enum Gathered<F> {
    /// It is held until the others come.
    Held {
        /// How many frames that were held for the same datagram were dropped instead (too many others came between).
        dropped: usize,
    },
    /// It was the last one missing.
    Complete(Datagram<F>),
    /// It goes on as it is: the kernel lets IPVS and routing see such IPv6 fragments.
    Ungathered {
        /// The fragment.
        frame: F,
        /// Why.
        why: UngatheredReason,
        /// How many frames that were held for the same datagram were dropped.
        dropped: usize,
    },
    /// It was dropped.
    Dropped {
        /// Why.
        reason: FragDrop,
        /// How many frames were dropped, this one included.
        frames: usize,
    },
}

/// A datagram given up because its time was over.
#[derive(Debug)]
pub struct Expired<F> {
    /// The frame of its first fragment, if that came: the sender is then told "fragment reassembly time exceeded" (ICMP time
    /// exceeded, code 1, in either family), quoting it.
    pub first: Option<F>,
    /// Where the IP header lies in `first`.
    pub l3_offset: usize,
    /// The interface by which a fragment of it came last.
    pub iface: IfaceId,
    /// Its family.
    pub family: Family,
    /// How many frames were dropped, without `first`.
    pub dropped: usize,
}

/// What a reassembler holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Frames.
    pub frames: usize,
    /// Datagrams that are waited for.
    pub datagrams: usize,
    /// Memory of IPv4 fragments, counted as whole buffers.
    pub v4_bytes: usize,
    /// Memory of IPv6 fragments, likewise.
    pub v6_bytes: usize,
}

/// What makes fragments those of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: [u8; 16],
    dst: [u8; 16],
    id: u32,
    /// 0 for IPv6.
    protocol: u8,
    v6: bool,
    /// The interface for IPv6, 0 for IPv4: a datagram's IPv4 fragments may come by several.
    iface: u16,
}

impl Key {
    fn of(info: &L3Info, iface: IfaceId) -> Key {
        let v6 = info.family == Family::V6;
        Key {
            src: info.src,
            dst: info.dst,
            id: info.frag_id,
            protocol: if v6 { 0 } else { info.protocol },
            v6,
            iface: if v6 { iface.0 } else { 0 },
        }
    }

    fn hash(&self, hash: &FlowHash) -> u64 {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&self.src);
        bytes[16..32].copy_from_slice(&self.dst);
        bytes[32..36].copy_from_slice(&self.id.to_ne_bytes());
        bytes[36] = self.protocol;
        bytes[37] = u8::from(self.v6);
        bytes[38..].copy_from_slice(&self.iface.to_ne_bytes());
        hash.array(&bytes)
    }
}

/// No slot.
const NONE: u32 = u32::MAX;

/// A datagram that is waited for, linked to its neighbours in the order of time.
#[derive(Debug)]
struct Slot<F> {
    key: Key,
    queue: Queue<F>,
    deadline: Time,
    /// Number of the source's last fragment that belonged here.
    source_count: u32,
    iface: IfaceId,
    bytes: usize,
    /// Where the IP header lies in the first fragment's frame.
    l3_offset: usize,
    older: u32,
    newer: u32,
}

impl<F> Slot<F> {
    fn family(&self) -> Family {
        match self.key.v6 {
            true => Family::V6,
            false => Family::V4,
        }
    }
}

/// Fragments of one IPv4 source while datagrams of it are waited for (the kernel's `inet_peer`).
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    count: u32,
    datagrams: u32,
}

/// Puts datagrams together from fragments that come in any order.
#[derive(Debug)]
pub struct Reassembler<F> {
    settings: Settings,
    hash: FlowHash,
    table: HashTable<u32>,
    slots: Vec<Option<Slot<F>>>,
    free: Vec<u32>,
    /// Oldest and newest datagram of each family: all of a family wait equally long.
    oldest: [u32; 2],
    newest: [u32; 2],
    sources: HashMap<[u8; 16], Source>,
    frames: usize,
    bytes: [usize; 2],
    /// Where datagrams are put together.
    scratch: Vec<u8>,
}

impl<F: Frame> Reassembler<F> {
    /// A reassembler that holds nothing. All tables are laid out now.
    pub fn new(settings: Settings, hash: FlowHash) -> Reassembler<F> {
        let datagrams = settings.max_datagrams;
        Reassembler {
            settings,
            hash,
            table: HashTable::with_capacity(datagrams),
            slots: Vec::with_capacity(datagrams),
            free: Vec::with_capacity(datagrams),
            oldest: [NONE; 2],
            newest: [NONE; 2],
            sources: HashMap::with_capacity(datagrams),
            frames: 0,
            bytes: [0; 2],
            scratch: Vec::new(),
        }
    }

    /// Changes bounds and times; times count for datagrams that begin from now on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What is held now.
    pub fn held(&self) -> Held {
        Held {
            frames: self.frames,
            datagrams: self.table.len(),
            v4_bytes: self.bytes[0],
            v6_bytes: self.bytes[1],
        }
    }

    /// Takes a fragment (by [`L3Info::is_fragment`], and of IPv6 an atomic one too) that came by `iface`; `info` is what its
    /// IP header, at `l3_offset` in the frame, says.
    pub fn push(
        &mut self,
        now: Time,
        iface: IfaceId,
        frame: F,
        l3_offset: usize,
        info: &L3Info,
        io: &mut impl PacketIo<Frame = F>,
    ) -> Gathered<F> {
        if frame.len() < l3_offset + info.total_len as usize {
            return Gathered::Dropped {
                reason: FragDrop::Truncated,
                frames: 1,
            };
        }
        let v6 = info.family == Family::V6;
        let header_len = if v6 {
            if let Some(why) = ungathered(&frame, l3_offset, info) {
                return Gathered::Ungathered {
                    frame,
                    why,
                    dropped: 0,
                };
            }
            usize::from(info.frag_header) + ipv6::FRAGMENT_LEN
        } else if info.is_fragment() {
            usize::from(info.l4_offset)
        } else {
            let why = UngatheredReason::NotAFragment;
            return Gathered::Ungathered {
                frame,
                why,
                dropped: 0,
            };
        };
        let Some(len) = (info.total_len as usize).checked_sub(header_len) else {
            return Gathered::Dropped {
                reason: FragDrop::Truncated,
                frames: 1,
            };
        };
        if self.bytes[usize::from(v6)] > self.settings.max_bytes {
            return Gathered::Dropped {
                reason: FragDrop::NoRoom,
                frames: 1,
            };
        }
        let Some(index) = self.find_or_begin(now, Key::of(info, iface)) else {
            return Gathered::Dropped {
                reason: FragDrop::NoRoom,
                frames: 1,
            };
        };
        let place = Place {
            offset: usize::from(info.frag_offset),
            len,
            more: info.has(flags::MORE_FRAGMENTS),
            data_at: l3_offset + header_len,
        };
        let restarted = self.give_up_if_far(now, index);
        let cost = cost(&frame);
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return Gathered::Dropped {
                reason: FragDrop::NoRoom,
                frames: 1,
            };
        };
        let packet_len = info.total_len as usize;
        let df = info.has(flags::DONT_FRAGMENT);
        let queued = slot
            .queue
            .push(frame, place, header_len, packet_len, info.tos, df);
        if let Queued::Waiting | Queued::Complete = queued {
            slot.iface = iface;
            slot.bytes += cost;
            if place.offset == 0 {
                slot.l3_offset = l3_offset;
            }
            self.frames += 1;
            self.bytes[usize::from(v6)] += cost;
        }
        match queued {
            Queued::Waiting => Gathered::Held { dropped: restarted },
            Queued::Complete => self.complete(index, io),
            Queued::Refused(reason, _) => Gathered::Dropped {
                reason,
                frames: 1 + restarted,
            },
            Queued::Hopeless(reason, _) => Gathered::Dropped {
                reason,
                frames: 1 + restarted + self.remove(index).map_or(0, |slot| slot.queue.frames()),
            },
            Queued::BadLength(frame) => Gathered::Ungathered {
                frame,
                why: UngatheredReason::BadLength,
                dropped: self.remove(index).map_or(0, |slot| slot.queue.frames()),
            },
        }
    }

    /// Gives up datagrams whose time is over, no more than `limit` in one call. Returns how many there were.
    pub fn expire(&mut self, now: Time, limit: usize, mut each: impl FnMut(Expired<F>)) -> usize {
        let mut done = 0;
        for v6 in [false, true] {
            while done < limit {
                let oldest = self.oldest[usize::from(v6)];
                match self.slots.get(oldest as usize) {
                    Some(Some(slot)) if slot.deadline <= now => {}
                    _ => break,
                }
                let Some(slot) = self.remove(oldest) else {
                    break;
                };
                let family = slot.family();
                let (first, dropped) = slot.queue.into_first();
                done += 1;
                each(Expired {
                    first,
                    l3_offset: slot.l3_offset,
                    iface: slot.iface,
                    family,
                    dropped,
                });
            }
        }
        done
    }

    /// The slot of the datagram with this key. `None` where it is new and the number of datagrams at its bound.
    fn find_or_begin(&mut self, now: Time, key: Key) -> Option<u32> {
        let hash = key.hash(&self.hash);
        let slots = &self.slots;
        let is_it = |index: &u32| matches!(&slots[*index as usize], Some(slot) if slot.key == key);
        let rehash = |index: &u32| {
            slots[*index as usize]
                .as_ref()
                .map_or(0, |slot| slot.key.hash(&self.hash))
        };
        if self.table.len() >= self.settings.max_datagrams {
            return self.table.find(hash, is_it).copied();
        }
        match self.table.entry(hash, is_it, rehash) {
            Entry::Occupied(found) => return Some(*found.get()),
            Entry::Vacant(vacant) => {
                let index = self.free.last().copied().unwrap_or(slots.len() as u32);
                vacant.insert(index);
            }
        }
        let slot = Some(Slot {
            key,
            queue: Queue::new(key.v6),
            deadline: self.deadline(now, key.v6),
            source_count: 0,
            iface: IfaceId(key.iface),
            bytes: 0,
            l3_offset: 0,
            older: NONE,
            newer: NONE,
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        if !key.v6 {
            self.sources.entry(key.src).or_default().datagrams += 1;
        }
        self.link(index);
        Some(index)
    }

    fn deadline(&self, now: Time, v6: bool) -> Time {
        let seconds = if v6 {
            self.settings.v6_seconds
        } else {
            self.settings.v4_seconds
        };
        Time(now.0.saturating_add(Time::from_secs(u64::from(seconds)).0))
    }

    /// Counts an IPv4 source's fragment. Where too many of it came since the last one of this datagram, drops what came of
    /// it and lets it begin anew (`ip_frag_too_far`, `ip_frag_reinit`). Returns how many frames were dropped.
    fn give_up_if_far(&mut self, now: Time, index: u32) -> usize {
        let deadline = self.deadline(now, false);
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return 0;
        };
        let max = self.settings.max_distance;
        if slot.key.v6 || max == 0 {
            return 0;
        }
        let Some(source) = self.sources.get_mut(&slot.key.src) else {
            return 0;
        };
        source.count = source.count.wrapping_add(1);
        let distance = source.count.wrapping_sub(slot.source_count);
        slot.source_count = source.count;
        let frames = slot.queue.frames();
        if frames == 0 || distance <= max {
            return 0;
        }
        slot.queue.clear();
        slot.deadline = deadline;
        self.frames -= frames;
        self.bytes[0] -= std::mem::take(&mut slot.bytes);
        self.unlink(index);
        self.link(index);
        frames
    }

    /// Takes a datagram out of all tables.
    fn remove(&mut self, index: u32) -> Option<Slot<F>> {
        self.unlink(index);
        let slot = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        let hash = slot.key.hash(&self.hash);
        if let Ok(entry) = self.table.find_entry(hash, |found| *found == index) {
            entry.remove();
        }
        if !slot.key.v6 {
            if let hashbrown::hash_map::Entry::Occupied(mut source) =
                self.sources.entry(slot.key.src)
            {
                source.get_mut().datagrams -= 1;
                if source.get().datagrams == 0 {
                    source.remove();
                }
            }
        }
        self.frames -= slot.queue.frames();
        self.bytes[usize::from(slot.key.v6)] -= slot.bytes;
        Some(slot)
    }

    /// Puts a slot at the newest end of its family's list.
    fn link(&mut self, index: u32) {
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return;
        };
        let list = usize::from(slot.key.v6);
        let newest = std::mem::replace(&mut self.newest[list], index);
        slot.older = newest;
        slot.newer = NONE;
        match self.slots.get_mut(newest as usize) {
            Some(Some(before)) => before.newer = index,
            _ => self.oldest[list] = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(Some(slot)) = self.slots.get(index as usize) else {
            return;
        };
        let (list, older, newer) = (usize::from(slot.key.v6), slot.older, slot.newer);
        match self.slots.get_mut(older as usize) {
            Some(Some(before)) => before.newer = newer,
            _ => self.oldest[list] = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(Some(after)) => after.older = older,
            _ => self.newest[list] = older,
        }
    }

    fn complete(&mut self, index: u32, io: &mut impl PacketIo<Frame = F>) -> Gathered<F> {
        let Some(slot) = self.remove(index) else {
            return Gathered::Dropped {
                reason: FragDrop::NoFrame,
                frames: 0,
            };
        };
        let frames = slot.queue.frames();
        self.scratch.clear();
        let built = build(
            &slot.queue,
            slot.family(),
            slot.l3_offset,
            &mut self.scratch,
        )
        .and_then(|()| io.alloc(&self.scratch).ok_or(FragDrop::NoFrame));
        match built {
            Ok(frame) => Gathered::Complete(Datagram {
                frame,
                pieces: slot.queue.pieces(),
                absorbed: frames - 1,
            }),
            Err(reason) => Gathered::Dropped { reason, frames },
        }
    }
}

/// Memory that a held frame takes: an mbuf has room for 2 KiB whatever lies in it.
fn cost<F: Frame>(frame: &F) -> usize {
    frame.len().max(2048) + 256
}
