//! Every call into the kernel that the standard library and nix do not wrap safely: aligned memory, block device,
//! interface and clock ioctls, packet sockets. Nothing here decides anything.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; each block states why it is sound")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use libc::{c_int, c_ulong, c_void};
use protocol::MacAddr;

/// Alignment that every direct-I/O device accepts, in bytes.
pub const PAGE: usize = 4096;

/// Size of a large page of x86-64 and of arm64 with 4 KiB pages, in bytes.
const LARGE_PAGE: usize = 2 << 20;

/// Zeroed memory aligned for O_DIRECT; its length is a multiple of [`PAGE`]. Of large pages where the kernel has some:
/// chunks are hashed as they come from the disk, and then each small page costs a stall of its own.
pub struct Buffer {
    memory: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    /// At least `len` bytes.
    pub fn new(len: usize) -> Self {
        let len = len.max(1).next_multiple_of(PAGE);
        let align = if len < LARGE_PAGE { PAGE } else { LARGE_PAGE };
        let layout = Layout::from_size_align(len, align).expect("buffers are far smaller than memory");
        // SAFETY: the size is not zero.
        let Some(memory) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        if align == LARGE_PAGE {
            // SAFETY: the range was just allocated and begins on a page; the advice changes no content. That the
            // kernel may not follow it is no fault.
            let _ = unsafe { libc::madvise(memory.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: `len` bytes were allocated.
        unsafe { memory.write_bytes(0, len) };
        Self { memory, layout }
    }
}

// SAFETY: the memory is plain bytes that this value alone owns.
unsafe impl Send for Buffer {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and nobody else has it.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes were allocated and zeroed, and the borrow of self covers them.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the mutable borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.layout.size()) }
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An ioctl whose argument is a pointer to `T`, read and written by the kernel.
///
/// # Safety
/// `request` must be one that takes a pointer to exactly `T`, and pointers inside `T` must be valid.
unsafe fn ioctl<T>(fd: &impl AsRawFd, request: c_ulong, arg: &mut T) -> io::Result<c_int> {
    // SAFETY: the fd is open for the borrow's time; the caller vouches for request and argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(arg)) })
}

const BLKROGET: c_ulong = 0x125e;
const BLKRRPART: c_ulong = 0x125f;
const BLKSSZGET: c_ulong = 0x1268;
const BLKDISCARD: c_ulong = 0x1277;
const BLKZEROOUT: c_ulong = 0x127f;
const BLKGETSIZE64: c_ulong = 0x8008_1272;

/// Size of a block device in bytes.
pub fn block_size_bytes(disk: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64.
    unsafe { ioctl(disk, BLKGETSIZE64, &mut size) }?;
    Ok(size)
}

/// Logical sector size of a block device in bytes.
pub fn block_sector(disk: &File) -> io::Result<u32> {
    let mut size: c_int = 0;
    // SAFETY: BLKSSZGET writes one int.
    unsafe { ioctl(disk, BLKSSZGET, &mut size) }?;
    u32::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// True where the kernel treats the device as read-only.
pub fn block_read_only(disk: &File) -> io::Result<bool> {
    let mut flag: c_int = 0;
    // SAFETY: BLKROGET writes one int.
    unsafe { ioctl(disk, BLKROGET, &mut flag) }?;
    Ok(flag != 0)
}

/// Makes a range read as zeros, by whatever the device does fastest; both ends on logical sectors.
pub fn block_zero(disk: &File, range: &Range<u64>) -> io::Result<()> {
    let mut arg = [range.start, range.end - range.start];
    // SAFETY: BLKZEROOUT reads two u64, start and length.
    unsafe { ioctl(disk, BLKZEROOUT, &mut arg) }.map(drop)
}

/// Tells the device that a range is unused. What it reads as afterwards is not promised.
pub fn block_discard(disk: &File, range: &Range<u64>) -> io::Result<()> {
    let mut arg = [range.start, range.end - range.start];
    // SAFETY: BLKDISCARD reads two u64, start and length.
    unsafe { ioctl(disk, BLKDISCARD, &mut arg) }.map(drop)
}

/// Asks the kernel to read the partition table again.
pub fn block_reread(disk: &File) -> io::Result<()> {
    let mut none = 0u64;
    // SAFETY: BLKRRPART ignores its argument.
    unsafe { ioctl(disk, BLKRRPART, &mut none) }.map(drop)
}

/// Zeroes a range of a plain file without changing its size.
pub fn file_zero(file: &File, range: &Range<u64>) -> io::Result<()> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (start, len) =
        (i64::try_from(range.start).map_err(bad)?, i64::try_from(range.end - range.start).map_err(bad)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain integers on an open fd.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, start, len) }).map(drop)
}

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    dwords_2_3: [u32; 2],
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    dwords_10_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const NVME_IOCTL_ID: c_ulong = 0x4e40;
const NVME_IOCTL_ADMIN_CMD: c_ulong = 0xc048_4e41;

/// Number of the namespace that a block device is.
pub fn nvme_namespace(disk: &File) -> io::Result<u32> {
    // SAFETY: NVME_IOCTL_ID takes no argument and answers the number.
    let id = check(unsafe { libc::ioctl(disk.as_raw_fd(), NVME_IOCTL_ID as _) })?;
    u32::try_from(id).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Sends an admin command with two dwords and reads at most `data`; the drive's status (0: done).
pub fn nvme_admin(
    disk: &File,
    (opcode, namespace, dword10, dword11): (u8, u32, u32, u32),
    data: &mut [u8],
    longest: Duration,
) -> io::Result<u16> {
    let mut command = NvmeCommand {
        opcode,
        namespace,
        addr: data.as_mut_ptr() as u64,
        data_len: u32::try_from(data.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        dwords_10_15: [dword10, dword11, 0, 0, 0, 0],
        timeout_ms: u32::try_from(longest.as_millis()).unwrap_or(u32::MAX),
        ..NvmeCommand::default()
    };
    if data.is_empty() {
        command.addr = 0;
    }
    // SAFETY: the command is a nvme_passthru_cmd whose data pointer and length are those of a live mutable slice.
    let status = unsafe { ioctl(disk, NVME_IOCTL_ADMIN_CMD, &mut command) }?;
    u16::try_from(status).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// `struct sg_io_hdr` of scsi/sg.h.
#[repr(C)]
struct ScsiHeader {
    interface: c_int,
    direction: c_int,
    command_len: u8,
    sense_max: u8,
    vectors: u16,
    data_len: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    id: c_int,
    user: *mut c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_len: u8,
    host_status: u16,
    driver_status: u16,
    residual: c_int,
    duration: u32,
    info: u32,
}

const SG_IO: c_ulong = 0x2285;

/// Data that go with a SCSI command.
pub enum ScsiData<'a> {
    /// None.
    None,
    /// From the drive.
    In(&'a mut [u8]),
    /// To the drive.
    Out(&'a mut [u8]),
}

/// Sends a SCSI command: the status that the drive answers, and its sense data.
pub fn scsi(disk: &File, command: &[u8], data: ScsiData<'_>, longest: Duration) -> io::Result<(u8, Vec<u8>)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let (direction, octets): (c_int, &mut [u8]) = match data {
        ScsiData::None => (-1, &mut []),
        ScsiData::Out(octets) => (-2, octets),
        ScsiData::In(octets) => (-3, octets),
    };
    let mut sense = [0; 252];
    let mut header = ScsiHeader {
        interface: c_int::from(b'S'),
        direction,
        command_len: u8::try_from(command.len()).map_err(|_| bad())?,
        sense_max: sense.len() as u8,
        vectors: 0,
        data_len: u32::try_from(octets.len()).map_err(|_| bad())?,
        data: octets.as_mut_ptr(),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: u32::try_from(longest.as_millis()).unwrap_or(u32::MAX),
        flags: 0,
        id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_len: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: SG_IO takes a sg_io_hdr; its pointers and lengths are those of live buffers, data and sense exclusively borrowed.
    unsafe { ioctl(disk, SG_IO, &mut header) }?;
    if header.host_status != 0 {
        return Err(io::Error::other(format!("the adapter says {:#x}", header.host_status)));
    }
    let sense = sense[..usize::from(header.sense_len).min(sense.len())].to_vec();
    Ok((header.status, sense))
}

/// Gives a range of a block device back, which then is guaranteed to read as zeros; fails where the device cannot guarantee it.
pub fn block_punch(disk: &File, range: &Range<u64>) -> io::Result<()> {
    // For block devices the kernel issues nothing but commands that leave zeros (blkdev_fallocate, BLKDEV_ZERO_NOFALLBACK).
    file_zero(disk, range)
}

const FS_IOC_GETFLAGS: c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: c_ulong = 0x4008_6602;
const FS_IMMUTABLE_FL: c_int = 0x10;

/// Clears the immutable flag that efivarfs puts on variables.
pub fn clear_immutable(file: &File) -> io::Result<()> {
    let mut flags: [c_int; 2] = [0; 2];
    // SAFETY: the kernel reads and writes an int through a pointer to long; two ints hold either.
    unsafe { ioctl(file, FS_IOC_GETFLAGS, &mut flags) }?;
    flags[0] &= !FS_IMMUTABLE_FL;
    // SAFETY: as above.
    unsafe { ioctl(file, FS_IOC_SETFLAGS, &mut flags) }.map(drop)
}

/// Sets the wall clock.
pub fn set_clock(since_epoch: Duration) -> io::Result<()> {
    let tv = libc::timeval {
        tv_sec: since_epoch.as_secs().try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        tv_usec: since_epoch.subsec_micros().into(),
    };
    // SAFETY: tv is a valid timeval, the time zone may be null.
    check(unsafe { libc::settimeofday(&raw const tv, std::ptr::null()) }).map(drop)
}

/// An interface request with this name; `None` where the name is too long for the kernel.
fn request_for(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain data for which all zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as _;
    }
    Ok(request)
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the fd was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Switches an interface on.
pub fn interface_up(interface: &str) -> io::Result<()> {
    let (socket, mut request) = (control_socket()?, request_for(interface)?);
    // SAFETY: SIOCGIFFLAGS and SIOCSIFFLAGS take an ifreq and use its flags member.
    unsafe {
        ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)?;
    }
    Ok(())
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: sockaddr_in is plain data for which all zero is valid.
    let mut sin: libc::sockaddr_in = unsafe { zeroed() };
    sin.sin_family = libc::AF_INET as _;
    sin.sin_addr.s_addr = u32::from(address).to_be();
    // SAFETY: sockaddr and sockaddr_in are both 16 plain bytes.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(sin) }
}

/// Gives an interface its IPv4 address and prefix.
pub fn set_address(interface: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let (socket, mut request) = (control_socket()?, request_for(interface)?);
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    request.ifr_ifru.ifru_addr = socket_address(address);
    // SAFETY: SIOCSIFADDR takes an ifreq and uses its address member.
    unsafe { ioctl(&socket, libc::SIOCSIFADDR, &mut request) }?;
    request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::from(mask));
    // SAFETY: SIOCSIFNETMASK likewise.
    unsafe { ioctl(&socket, libc::SIOCSIFNETMASK, &mut request) }.map(drop)
}

const SIOCDIFADDR: c_ulong = 0x8936;

/// `struct in6_ifreq` of linux/ipv6.h.
#[repr(C)]
struct Request6 {
    address: libc::in6_addr,
    prefix: u32,
    index: c_int,
}

/// Gives an interface an IPv6 address beside those that it has; that it has this one already is no error.
pub fn add_address6(interface: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
    match change_address6(interface, address, prefix, libc::SIOCSIFADDR) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Takes an IPv6 address away; that it is not there is no error.
pub fn remove_address6(interface: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
    match change_address6(interface, address, prefix, SIOCDIFADDR) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        other => other,
    }
}

fn change_address6(interface: &str, address: Ipv6Addr, prefix: u8, request: c_ulong) -> io::Result<()> {
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the fd was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let index = c_int::try_from(nix::net::if_::if_nametoindex(interface)?)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let address = libc::in6_addr { s6_addr: address.octets() };
    let mut arg = Request6 { address, prefix: prefix.into(), index };
    // SAFETY: SIOCSIFADDR and SIOCDIFADDR of an IPv6 socket read an in6_ifreq.
    unsafe { ioctl(&socket, request, &mut arg) }.map(drop)
}

/// Adds the default route; that it is there already is no error.
pub fn set_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let socket = control_socket()?;
    // SAFETY: rtentry is plain data for which all zero is valid.
    let mut route: libc::rtentry = unsafe { zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: SIOCADDRT takes an rtentry; its device name may be null.
    match unsafe { ioctl(&socket, libc::SIOCADDRT, &mut route) } {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.map(drop),
    }
}

const SIOCETHTOOL: c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;
const ETHTOOL_GPERMADDR: u32 = 0x20;

/// `struct ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// Driver name and firmware version of an interface; empty strings where the driver does not say.
pub fn driver_info(interface: &str) -> io::Result<(String, String)> {
    let (socket, mut request) = (control_socket()?, request_for(interface)?);
    // SAFETY: DriverInfo is plain data for which all zero is valid.
    let mut info: DriverInfo = unsafe { zeroed() };
    info.cmd = ETHTOOL_GDRVINFO;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut info).cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the command's struct, which outlives the call.
    unsafe { ioctl(&socket, SIOCETHTOOL, &mut request) }?;
    let text =
        |b: &[u8]| String::from_utf8_lossy(b.split(|c| *c == 0).next().unwrap_or_default()).into_owned();
    Ok((text(&info.driver), text(&info.fw_version)))
}

/// Address burnt into the card.
pub fn permanent_mac(interface: &str) -> io::Result<MacAddr> {
    /// `struct ethtool_perm_addr` with room for MAX_ADDR_LEN.
    #[repr(C)]
    struct Permanent {
        cmd: u32,
        size: u32,
        data: [u8; 32],
    }
    let (socket, mut request) = (control_socket()?, request_for(interface)?);
    let mut arg = Permanent { cmd: ETHTOOL_GPERMADDR, size: 32, data: [0; 32] };
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut arg).cast();
    // SAFETY: as in `driver_info`; the kernel writes at most `size` bytes behind the two words.
    unsafe { ioctl(&socket, SIOCETHTOOL, &mut request) }?;
    match (arg.size, arg.data) {
        (6, [a, b, c, d, e, f, ..]) => Ok(MacAddr([a, b, c, d, e, f])),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A raw packet socket on one interface for one EtherType.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens it; `multicast` is a group to listen to besides the station's own address.
    pub fn open(interface: &str, ethertype: u16, multicast: Option<[u8; 6]>) -> io::Result<Self> {
        let protocol = c_int::from(ethertype.to_be());
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain integers; protocol 0 would receive nothing, so binding below starts reception.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the fd was just made and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut request = request_for(interface)?;
        // SAFETY: SIOCGIFINDEX takes an ifreq and sets its index member.
        let index = unsafe {
            ioctl(&socket, libc::SIOCGIFINDEX, &mut request)?;
            request.ifr_ifru.ifru_ifindex
        };
        // SAFETY: sockaddr_ll is plain data for which all zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as _;
        address.sll_protocol = protocol as _;
        address.sll_ifindex = index;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll of that length.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
        if let Some(group) = multicast {
            // SAFETY: packet_mreq is plain data for which all zero is valid.
            let mut member: libc::packet_mreq = unsafe { zeroed() };
            member.mr_ifindex = index;
            member.mr_type = libc::PACKET_MR_MULTICAST as _;
            member.mr_alen = 6;
            member.mr_address[..6].copy_from_slice(&group);
            let len = size_of::<libc::packet_mreq>() as libc::socklen_t;
            let option = libc::PACKET_ADD_MEMBERSHIP;
            // SAFETY: the option takes a packet_mreq of that length.
            check(unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    option,
                    (&raw const member).cast::<c_void>(),
                    len,
                )
            })?;
        }
        Ok(Self(socket))
    }

    /// Takes one frame, if there is one. Longer frames are cut.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and length are those of a live mutable slice.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Sends one frame with its Ethernet header.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> c_int {
        self.0.as_raw_fd()
    }
}

/// Waits until one of the descriptors can be read, or the time is over; says which can.
pub fn wait_readable(fds: &[c_int], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut polls: Vec<_> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the pointer and count are those of a live mutable Vec.
    match check(unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as _, millis) }) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(polls.iter().map(|p| p.revents != 0).collect()),
    }
}

const IPMICTL_SEND_COMMAND: c_ulong = 0x8028_690d;
const IPMICTL_RECEIVE_MSG_TRUNC: c_ulong = 0xc030_690b;

/// `struct ipmi_system_interface_addr` of linux/ipmi.h.
#[repr(C)]
struct IpmiAddress {
    kind: c_int,
    channel: libc::c_short,
    lun: u8,
}

/// `struct ipmi_msg`.
#[repr(C)]
struct IpmiMessage {
    netfn: u8,
    cmd: u8,
    len: u16,
    data: *mut u8,
}

/// `struct ipmi_req`.
#[repr(C)]
struct IpmiRequest {
    addr: *mut IpmiAddress,
    addr_len: u32,
    id: libc::c_long,
    message: IpmiMessage,
}

/// `struct ipmi_recv`.
#[repr(C)]
struct IpmiReceived {
    kind: c_int,
    addr: *mut IpmiAddress,
    addr_len: u32,
    id: libc::c_long,
    message: IpmiMessage,
}

/// Sends one command to the management controller behind `device` and waits for its answer, which begins with the
/// completion code.
pub fn ipmi(device: &File, netfn: u8, cmd: u8, data: &[u8], longest: Duration) -> io::Result<Vec<u8>> {
    // IPMI_SYSTEM_INTERFACE_ADDR_TYPE and IPMI_BMC_CHANNEL.
    let mut addr = IpmiAddress { kind: 0x0c, channel: 0x0f, lun: 0 };
    let addr_len = size_of::<IpmiAddress>() as u32;
    let mut data = data.to_vec();
    let len = u16::try_from(data.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let message = IpmiMessage { netfn, cmd, len, data: data.as_mut_ptr() };
    let mut request = IpmiRequest { addr: &raw mut addr, addr_len, id: 1, message };
    // SAFETY: the request and all it points to live until the call returns; the kernel copies them.
    unsafe { ioctl(device, IPMICTL_SEND_COMMAND, &mut request) }?;
    if wait_readable(&[device.as_raw_fd()], longest)? != [true] {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut answer = vec![0; 272];
    let message = IpmiMessage { netfn: 0, cmd: 0, len: answer.len() as u16, data: answer.as_mut_ptr() };
    let mut got = IpmiReceived { kind: 0, addr: &raw mut addr, addr_len, id: 0, message };
    // SAFETY: the kernel writes at most `len` bytes to `data` and `addr_len` to `addr`, which live until it returns.
    unsafe { ioctl(device, IPMICTL_RECEIVE_MSG_TRUNC, &mut got) }?;
    answer.truncate(got.message.len.into());
    Ok(answer)
}
