// SPDX-License-Identifier: GPL-2.0-or-later
#include "confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Locked memory is counted whole, used or not. */
#define STACK_BYTES (512 * 1024)

static bool refused(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return false;
}

static bool drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};

	return syscall(SYS_capset, &header, none) == 0 || refused("dropping capabilities");
}

/* Keys are not swapped. A launcher that leaves no limit for it forbids swap by a control group. */
static void lock_memory(void)
{
	struct rlimit limit;
	pthread_attr_t attributes;

	mallopt(M_ARENA_MAX, 1);
	if (pthread_attr_init(&attributes) == 0) {
		pthread_attr_setstacksize(&attributes, STACK_BYTES);
		pthread_setattr_default_np(&attributes);
		pthread_attr_destroy(&attributes);
	}
	/* Beyond the limit, later allocations would fail. */
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY
	    && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0)
		return;
	fputs("memory is not locked: RLIMIT_MEMLOCK is not unlimited\n", stderr);
}

bool confine_process(void)
{
	static const struct rlimit NO_CORE = {0, 0};
	static const struct rlimit FEW_FILES = {64, 64};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return refused("no_new_privs");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || setrlimit(RLIMIT_CORE, &NO_CORE))
		return refused("no core dump");
	if (setrlimit(RLIMIT_NOFILE, &FEW_FILES))
		return refused("the number of open files");
	lock_memory();
	return drop_capabilities();
}

/* ------------------------------------------------------------------ system calls */

/* What a running charon calls, with any arguments: open descriptors, its own memory, the time. */
static const int ALLOWED[] = {
	/* The connections to the switch, VICI's, and the log. */
	SYS_read, SYS_write, SYS_writev, SYS_recvfrom, SYS_close, SYS_shutdown, SYS_accept,
	SYS_accept4, SYS_fcntl, SYS_fstat, SYS_lseek, SYS_getsockopt,
	/* The threads that are starting meanwhile. No other is started. */
	SYS_rseq, SYS_set_robust_list,
	/* Waiting, waking and the end of threads. */
	SYS_poll, SYS_ppoll, SYS_futex, SYS_nanosleep, SYS_clock_nanosleep, SYS_sched_yield,
	SYS_restart_syscall, SYS_rt_sigtimedwait, SYS_rt_sigprocmask, SYS_rt_sigaction,
	SYS_rt_sigreturn, SYS_sigaltstack, SYS_exit, SYS_exit_group,
	/* Time, if the vDSO falls back to a system call. */
	SYS_clock_gettime, SYS_gettimeofday, SYS_time,
	/* Memory; mapping is below. */
	SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise,
	/* Itself. */
	SYS_getpid, SYS_gettid, SYS_getrandom,
	/* At the end, VICI's socket is removed. */
	SYS_unlink,
};

/* What libraries try and can do without: files (names of ports and protocols), a name service, the
 * kind of a terminal. */
static const int REFUSED[] = {
	SYS_open, SYS_openat, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access,
	SYS_faccessat, SYS_readlink, SYS_readlinkat, SYS_getcwd, SYS_socket, SYS_connect, SYS_ioctl,
	SYS_uname,
};

/* A filter being written. */
typedef struct {
	struct sock_filter code[160];
	unsigned short length;
	bool full;
} filter_t;

static void add(filter_t *filter, struct sock_filter instruction)
{
	if (filter->length == sizeof(filter->code) / sizeof(filter->code[0]))
		filter->full = true;
	else
		filter->code[filter->length++] = instruction;
}

#define LOAD(offset) ((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset))
#define RETURN(verdict) ((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict))
#define IF_EQUAL(value, yes, no) \
	((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no))
#define IF_SET(bits, yes, no) \
	((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, yes, no))

/* The offset of one half of an argument: the low one first (little endian). */
static uint32_t argument(unsigned int number, unsigned int half)
{
	return offsetof(struct seccomp_data, args) + 8 * number + 4 * half;
}

/* Allows a call whose argument, of 64 bits, is `value`. */
static void allow_if_equal(filter_t *filter, int call, unsigned int number, uint32_t value)
{
	add(filter, IF_EQUAL((uint32_t)call, 0, 6));
	add(filter, LOAD(argument(number, 0)));
	add(filter, IF_EQUAL(value, 0, 3));
	add(filter, LOAD(argument(number, 1)));
	add(filter, IF_EQUAL(0, 0, 1));
	add(filter, RETURN(SECCOMP_RET_ALLOW));
	add(filter, RETURN(SECCOMP_RET_KILL_PROCESS));
}

/* Allows a call that makes no memory executable. */
static void allow_if_not_executable(filter_t *filter, int call)
{
	add(filter, IF_EQUAL((uint32_t)call, 0, 4));
	add(filter, LOAD(argument(2, 0)));
	add(filter, IF_SET(PROT_EXEC, 1, 0));
	add(filter, RETURN(SECCOMP_RET_ALLOW));
	add(filter, RETURN(SECCOMP_RET_KILL_PROCESS));
}

static void answer(filter_t *filter, const int *calls, size_t count, uint32_t verdict)
{
	for (size_t at = 0; at < count; at++) {
		add(filter, IF_EQUAL((uint32_t)calls[at], 0, 1));
		add(filter, RETURN(verdict));
	}
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool confine_calls(void)
{
	uint32_t self = (uint32_t)getpid();
	struct sock_fprog program;
	filter_t filter = {};

#ifdef __SANITIZE_ADDRESS__
	/* The sanitizer reads files when it reports. */
	return true;
#endif
	add(&filter, LOAD(offsetof(struct seccomp_data, arch)));
	add(&filter, IF_EQUAL(AUDIT_ARCH_X86_64, 1, 0));
	add(&filter, RETURN(SECCOMP_RET_KILL_PROCESS));
	add(&filter, LOAD(offsetof(struct seccomp_data, nr)));
	answer(&filter, ALLOWED, COUNT(ALLOWED), SECCOMP_RET_ALLOW);
	answer(&filter, REFUSED, COUNT(REFUSED), SECCOMP_RET_ERRNO | EACCES);
	allow_if_not_executable(&filter, SYS_mmap);
	allow_if_not_executable(&filter, SYS_mprotect);
	/* To no address: it goes to the other end of the connection. */
	allow_if_equal(&filter, SYS_sendto, 4, 0);
	allow_if_equal(&filter, SYS_kill, 0, self);
	allow_if_equal(&filter, SYS_tgkill, 0, self);
	add(&filter, RETURN(SECCOMP_RET_KILL_PROCESS));
	program.len = filter.length;
	program.filter = filter.code;
	if (filter.full) {
		fputs("the filter of system calls has no room\n", stderr);
		return false;
	}
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0
	       || refused("seccomp");
}
