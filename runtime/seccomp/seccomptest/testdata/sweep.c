/* sweep: what does the seccomp filter of this process say about a system call, without making it?
 *
 *     sweep [FILTER] < questions > answers
 *
 * A question is a line "abi nr arg0 arg1": abi is 64, x32 or 32 (int 0x80), nr decimal, the arguments as 0x1f. Its answer is
 * "abi nr arg0 arg1 verdict": "allow" or an errno number. FILTER, an array of struct sock_filter, is loaded first;
 * without it the filters that are there already are asked.
 *
 * How: a filter on top answers every call whose sixth argument is MAGIC with SECCOMP_RET_USER_NOTIF, which any
 * ERRNO of the filters below outranks, and which outranks their ALLOW. The supervisor answers a call that came
 * through with an error number that no kernel function uses. A filter that kills ends the sweep.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <signal.h>

#define MAGIC 0x5ecc04f0u
#define THROUGH 4000

static struct question { char abi[4]; unsigned long nr, a0, a1; long ret; } *q;
static int n;

static void die(const char *what) { perror(what); exit(1); }

#ifdef __x86_64__
static long ask64(unsigned long nr, unsigned long a0, unsigned long a1)
{
	long ret;
	register long r10 __asm__("r10") = 0, r8 __asm__("r8") = 0, r9 __asm__("r9") = MAGIC;
	/* r9 is cleared, or the next call of libc, which leaves it alone, would carry the mark. */
	__asm__ volatile("syscall; xor %%r9d, %%r9d" : "=a"(ret), "+r"(r9)
		: "a"(nr), "D"(a0), "S"(a1), "d"(0), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return ret;
}

static long ask32(unsigned long nr, unsigned long a0, unsigned long a1)
{
	long ret;
	__asm__ volatile("push %%rbp; mov %[magic], %%ebp; int $0x80; pop %%rbp"
		: "=a"(ret) : "a"(nr), "b"(a0), "c"(a1), "d"(0), "S"(0), "D"(0), [magic] "i"(MAGIC) : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}
#else
static long ask64(unsigned long nr, unsigned long a0, unsigned long a1)
{
	return syscall(nr, a0, a1, 0, 0, 0, MAGIC) < 0 ? -errno : 0;
}
static long ask32(unsigned long nr, unsigned long a0, unsigned long a1) { return -ENOSYS; }
#endif

static void load(const char *path)
{
	static struct sock_filter f[BPF_MAXINSNS];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, f, sizeof f);
	if (size <= 0)
		die(path);
	struct sock_fprog p = {.len = size / sizeof *f, .filter = f};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p))
		die("load filter");
}

static int listen_on_top(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MAGIC, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {.len = sizeof f / sizeof *f, .filter = f};
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p);
}

static void supervise(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while (poll(&p, 1, -1) >= 0 && !(p.revents & POLLHUP)) {
		struct seccomp_notif req = {0};
		if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &req))
			break;
		struct seccomp_notif_resp resp = {.id = req.id, .error = -THROUGH};
		if (ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp))
			break;
	}
}

int main(int argc, char **argv)
{
	const size_t room = 1 << 20;
	q = mmap(0, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (q == MAP_FAILED)
		die("mmap");
	for (struct question *i = q; (char *)(i + 2) < (char *)q + room &&
		scanf("%3s %lu 0x%lx 0x%lx", i->abi, &i->nr, &i->a0, &i->a1) == 4; i++)
		n++;
	volatile int *listener = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*listener = -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		die("no_new_privs");
	if (argc > 1)
		load(argv[1]);
	/* The child shares our fds, so that its listener is ours too. */
	int pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		die("clone");
	if (!pid) {
		int fd = listen_on_top();
		if (fd < 0)
			die("listener");
		*listener = fd;
		for (int i = 0; i < n; i++)
			q[i].ret = strcmp(q[i].abi, "32") ? ask64(q[i].nr | (strcmp(q[i].abi, "x32") ? 0 : 0x40000000), q[i].a0, q[i].a1)
							  : ask32(q[i].nr, q[i].a0, q[i].a1);
		_exit(0);
	}
	int status = 0, ended = 0;
	while (*listener < 0 && !ended) {
		ended = waitpid(pid, &status, WNOHANG);
		sched_yield();
	}
	if (!ended) {
		supervise(*listener);
		close(*listener);
		waitpid(pid, &status, 0);
	}
	if (status) {
		fprintf(stderr, "the asking process ended with status %#x\n", status);
		return 1;
	}
	for (int i = 0; i < n; i++) {
		if (q[i].ret == -THROUGH)
			printf("%s %lu 0x%lx 0x%lx allow\n", q[i].abi, q[i].nr, q[i].a0, q[i].a1);
		else
			printf("%s %lu 0x%lx 0x%lx %ld\n", q[i].abi, q[i].nr, q[i].a0, q[i].a1, -q[i].ret);
	}
	return 0;
}
