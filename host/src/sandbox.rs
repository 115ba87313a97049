//! The second layer: what a process of ours gives up before a stranger's byte
//! reaches it, so that whoever breaks out of a guest or of the compiler finds
//! little to take.
//!
//! Landlock bounds files, the ports that are listened on, signals and abstract
//! sockets; a seccomp filter ends what no part of the host needs. Both belong to
//! a thread and are inherited by those that it starts, and by programs: so they
//! are put on while there is only one thread. Neither can be taken off again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::io::Errno;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Whether a host is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As far as the kernel can.
    Auto,
    /// Wholly, or it does not start.
    On,
    /// Not at all.
    Off,
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("must be auto, on or off"),
        }
    }
}

/// Files and ports that stay within reach. What does not exist is passed over.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Files and folders to read and change.
    pub write: Vec<PathBuf>,
    /// Files and folders to read.
    pub read: Vec<PathBuf>,
    /// Programs to start, with the libraries that they need.
    pub execute: Vec<PathBuf>,
    /// TCP ports to listen on; 0 stands for any that is free.
    pub listen: BTreeSet<u16>,
}

/// What is in force.
#[derive(Debug, Default)]
pub struct InForce {
    files: bool,
    ports: bool,
    signals: bool,
    system_calls: bool,
    /// A rule for a folder of /proc lasts as long as somebody has it open.
    _own_process: Option<File>,
}

impl InForce {
    /// Whether an attacker could reach neither files nor system calls that are
    /// not needed. Ports and signals came later to the kernel.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.files && self.system_calls
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.files, "files"),
            (self.ports, "ports"),
            (self.signals, "signals"),
            (self.system_calls, "system calls"),
        ];
        let parts: Vec<&str> =
            parts.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// Why a thread could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refused the promise to gain no rights.
    #[error("the process can not give up new privileges")]
    Privileges(#[from] Errno),
    /// The kernel has Landlock and refused the rules.
    #[error("files can not be confined")]
    Files(#[from] RulesetError),
    /// The filter is wrong, or the kernel refused it.
    #[error("system calls can not be confined")]
    SystemCalls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Confines the calling thread, and all that it starts, to what a host needs.
///
/// # Errors
/// See [`SandboxError`]: what was put on before stays on. A kernel without
/// Landlock or seccomp is no error; [`InForce`] tells.
pub fn confine_host(reach: &Reach) -> Result<InForce, SandboxError> {
    rustix::thread::set_no_new_privs(true)?;
    let mut in_force = confine_files(reach)?;
    let mut rules = forbidden(HOST_FORBIDDEN);
    rules.append(&mut foreign_sockets()?);
    in_force.system_calls = forbid(rules)?;
    Ok(in_force)
}

/// Confines the calling thread, and all that it starts, to computing: no file
/// and no port can be opened, no program started, no other process reached.
///
/// # Errors
/// As [`confine_host`]; also when the kernel does not filter system calls.
pub fn confine_compiler() -> Result<(), SandboxError> {
    rustix::thread::set_no_new_privs(true)?;
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .create()?
        .restrict_self()?;
    let numbers = HOST_FORBIDDEN.iter().chain(COMPILER_FORBIDDEN).copied();
    if forbid(forbidden(&numbers.collect::<Vec<_>>()))? {
        Ok(())
    } else {
        Err(SandboxError::SystemCalls("the kernel has no seccomp".into()))
    }
}

/// What confining a host would put in force, tried on a thread that ends.
///
/// # Errors
/// As [`confine_host`].
pub fn probe(reach: &Reach) -> Result<InForce, SandboxError> {
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| confine_host(reach)).join();
        tried.unwrap_or_else(|_| Err(SandboxError::SystemCalls("the attempt failed".into())))
    })
}

/// What starting this program again reads and executes: itself, its interpreter
/// and its libraries, as they are mapped now, and the folders of those.
///
/// # Errors
/// When the process can not look at itself.
pub fn own_program() -> io::Result<(Vec<PathBuf>, BTreeSet<PathBuf>)> {
    // Not by name: it may have been replaced since.
    let mut programs = vec![PathBuf::from("/proc/self/exe")];
    let own = std::fs::read_link("/proc/self/exe")?;
    let mut folders = BTreeSet::new();
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let executable = line.split_whitespace().nth(1).is_some_and(|rights| rights.contains('x'));
        let Some(library) = line.find('/').and_then(|at| line.get(at..)).map(Path::new) else {
            continue;
        };
        if executable && library != own && library.is_file() {
            programs.push(library.to_owned());
            folders.extend(library.parent().map(Path::to_owned));
        }
    }
    Ok((programs, folders))
}

fn confine_files(reach: &Reach) -> Result<InForce, RulesetError> {
    use AccessFs::{
        Execute, MakeDir, MakeReg, ReadDir, ReadFile, Refer, RemoveDir, RemoveFile, Truncate,
        WriteFile,
    };
    let read = ReadFile | ReadDir;
    let write: BitFlags<AccessFs> =
        read | WriteFile | Truncate | MakeDir | MakeReg | RemoveDir | RemoveFile | Refer;
    let ports = reach.listen.iter();
    let ports = ports.map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::BindTcp)));
    let own_process = File::open("/proc/self").ok();
    let status = Ruleset::default()
        // The first Landlock forbade to rename into another folder, which is how
        // files are kept: there none of it is used.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        // Where to connect is for `allow_hosts` to say: here only ports count.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules(&reach.write, write))?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.execute, ReadFile | Execute))?
        .add_rules(ports)?
        .restrict_self()?;
    let since = |abi: ABI| {
        status.ruleset != RulesetStatus::NotEnforced
            && matches!(status.landlock, LandlockStatus::Available { effective_abi, .. } if effective_abi as u32 >= abi as u32)
    };
    Ok(InForce {
        files: since(ABI::V2),
        ports: since(ABI::V4),
        signals: since(ABI::V6),
        system_calls: false,
        _own_process: own_process,
    })
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Nothing in the host calls these, and each has been a way out of a process or
/// into a kernel. Starting programs is not among them: the compile child is one,
/// and Landlock leaves no other.
const HOST_FORBIDDEN: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_execveat,
    // Large and young parts of the kernel.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Other views of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // Other rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// What compiling needs even less.
const COMPILER_FORBIDDEN: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_execve,
    libc::SYS_kill,
];

/// Set in the number of a call by the second, 32-bit way that some x86-64
/// kernels have to make it.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// `ptrace`, `execve`, `kexec_load`, `process_vm_readv`, `process_vm_writev` and
/// `execveat` have numbers of their own there.
#[cfg(target_arch = "x86_64")]
const X32_NUMBERS: [i64; 6] = [520, 521, 528, 539, 540, 545];

fn forbidden(numbers: &[i64]) -> Rules {
    let native = numbers.iter().copied();
    #[cfg(target_arch = "x86_64")]
    let native = native
        .chain(numbers.iter().map(|number| number | X32))
        .chain(X32_NUMBERS.iter().map(|number| number | X32));
    native.map(|number| (number, Vec::new())).collect()
}

/// Sockets but for TCP, UDP, the kernel's list of addresses (which resolving
/// names needs) and those of this machine alone; and new namespaces.
fn foreign_sockets() -> Result<Rules, SandboxError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let when = |argument: u8, is: SeccompCmpOp, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, u64::from(value as u32))
            .map_err(failed)
    };
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions).map_err(failed);
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let foreign = families.map(|family| when(0, Ne, family));
    let mut sockets = vec![rule(foreign.into_iter().collect::<Result<_, _>>()?)?];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Below the flags.
        let raw = when(1, MaskedEq(0xf), libc::SOCK_RAW)?;
        sockets.push(rule(vec![when(0, Eq, family)?, raw])?);
    }
    let other_netlink = vec![when(0, Eq, libc::AF_NETLINK)?, when(2, Ne, libc::NETLINK_ROUTE)?];
    sockets.push(rule(other_netlink)?);
    let mut clones = Vec::new();
    for flag in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ] {
        clones.push(rule(vec![when(0, MaskedEq(flag as u32 as u64), flag)?])?);
    }
    Ok([(libc::SYS_socket, sockets), (libc::SYS_clone, clones)].into())
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> SandboxError {
    SandboxError::SystemCalls(Box::new(error))
}

/// Makes these calls fail with `EPERM`, and the ones whose arguments a filter
/// can not see with `ENOSYS`, for which everybody has another way. False: the
/// kernel has no filters.
fn forbid(rules: Rules) -> Result<bool, SandboxError> {
    let hidden: Rules = [(libc::SYS_clone3, Vec::new())].into();
    for (rules, errno) in [(hidden, Errno::NOSYS), (rules, Errno::PERM)] {
        let arch =
            std::env::consts::ARCH.try_into().map_err(|error: BackendError| failed(error))?;
        let answer = SeccompAction::Errno(errno.raw_os_error() as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch);
        let program: seccompiler::BpfProgram =
            filter.and_then(TryInto::try_into).map_err(failed)?;
        match seccompiler::apply_filter(&program) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
                if [Some(Errno::NOSYS.raw_os_error()), Some(Errno::INVAL.raw_os_error())]
                    .contains(&error.raw_os_error()) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::PermissionDenied;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::process::Command;

    use super::*;

    /// Runs it on a thread of its own, whose rights end with it.
    fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    #[track_caller]
    fn denied<T>(result: io::Result<T>) {
        assert_eq!(result.err().map(|error| error.kind()), Some(PermissionDenied));
    }

    #[test]
    fn who_breaks_out_of_a_guest_reaches_the_data_folder_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let folder = data.path().to_owned();
        let secret = other.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let whole = on_a_thread(move || {
            let write = vec![folder.clone()];
            let listen = [0].into();
            let in_force = confine_host(&Reach { write, listen, ..Reach::default() }).unwrap();
            // What a host does.
            std::fs::create_dir(folder.join("a")).unwrap();
            std::fs::write(folder.join("part"), "x").unwrap();
            std::fs::rename(folder.join("part"), folder.join("a/whole")).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            // What it does not.
            denied(std::fs::read(&secret));
            denied(std::fs::write(&secret, "y"));
            denied(File::open("/etc/shadow"));
            denied(std::fs::read_dir("/"));
            // It says that it were another file system.
            assert!(std::fs::hard_link(&secret, folder.join("mine")).is_err());
            denied(std::os::unix::fs::symlink("/etc", folder.join("link")));
            denied(Command::new("/bin/true").status());
            denied(Command::new("/proc/self/exe").status());
            denied(TcpListener::bind(taken));
            use socket2::{Domain, Socket, Type};
            denied(Socket::new(Domain::PACKET, Type::DGRAM, None));
            denied(Socket::new(Domain::VSOCK, Type::STREAM, None));
            denied(Socket::new(Domain::IPV4, Type::RAW, Some(1.into())));
            denied(Socket::new(Domain::IPV6, Type::RAW, Some(58.into())));
            let parent = rustix::process::getppid().unwrap();
            assert_eq!(rustix::process::test_kill_process(parent), Err(Errno::PERM));
            in_force.is_whole()
        });
        assert!(whole, "this kernel has Landlock and seccomp");
    }

    /// A program under the same filter asks for each of the calls by its number,
    /// with arguments that none of them takes.
    #[test]
    fn none_of_the_forbidden_calls_gets_into_the_kernel() {
        const ASK: &str = "import ctypes, errno, sys\n\
            ask = ctypes.CDLL(None, use_errno=True).syscall\n\
            for number in map(int, sys.argv[1:]):\n    \
                ctypes.set_errno(0)\n    \
                ask(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)\n    \
                if ctypes.get_errno() != errno.EPERM:\n        \
                    print(number, errno.errorcode.get(ctypes.get_errno()))\n\
            PTRACE_TRACEME = 0\n\
            print(ask(101, PTRACE_TRACEME, 0, 0, 0), ask(272, 0))\n";
        let said = on_a_thread(|| {
            let reach = Reach {
                read: vec!["/".into()],
                execute: vec!["/usr".into(), "/lib".into(), "/lib64".into(), "/bin".into()],
                ..Reach::default()
            };
            let _in_force = confine_host(&reach).unwrap();
            let numbers = forbidden(HOST_FORBIDDEN).into_keys();
            let numbers = numbers.filter(|number| *number < 1 << 30).map(|n| n.to_string());
            Command::new("/usr/bin/python3").args(["-c", ASK]).args(numbers).output().unwrap()
        });
        assert!(said.status.success(), "{said:?}");
        assert_eq!(String::from_utf8_lossy(&said.stdout), "-1 -1\n");
    }

    #[test]
    fn who_breaks_out_of_the_compiler_reaches_nothing() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        on_a_thread(move || {
            confine_compiler().unwrap();
            denied(File::open("/etc/hostname"));
            denied(std::fs::read_dir(&folder));
            denied(std::fs::write(folder.join("file"), "x"));
            denied(TcpStream::connect(address));
            denied(UdpSocket::bind("127.0.0.1:0"));
            denied(Command::new("/proc/self/exe").status());
            let parent = rustix::process::getppid().unwrap();
            assert_eq!(rustix::process::test_kill_process(parent), Err(Errno::PERM));
        });
    }

    #[test]
    fn an_attempt_leaves_the_process_as_it_was() {
        let reach = Reach::default();
        assert_eq!(probe(&reach).unwrap().to_string(), "files, ports, signals, system calls");
        assert!(File::open("/etc/hostname").is_ok());
    }

    #[test]
    fn a_mode_is_one_of_three() {
        assert_eq!("auto".parse(), Ok(Mode::Auto));
        assert!("true".parse::<Mode>().is_err());
    }
}
