// The floor of `hull run --rm --network none`: the kernel's share of starting a container, and no more. It makes the
// namespaces and mounts every container has, runs /bin/true in them, waits and passes the status on. It allocates
// nothing, reads no image, keeps no state and no log, sets no limit and no filter: what Hull takes beyond it is
// Hull's own.
//
//     limit ROOTFS SCRATCH [net]
//
// ROOTFS is a directory with a static /bin/true and empty proc, sys and dev; SCRATCH one that this program may write
// to; net adds a network namespace. (Command bench, one directory up, compiles and runs it.)
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char scratch_root[2048], overlay_options[8192];

static void need(int result, const char *what) {
	if (result == -1) {
		fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
		_exit(111);
	}
}

static void bind_device(const char *name) {
	char inside[32] = "dev/", host[32] = "/dev/";
	strcat(inside, name);
	strcat(host, name);
	need(mknod(inside, S_IFREG | 0666, 0), inside);
	need(mount(host, inside, NULL, MS_BIND, NULL), host);
}

static int container(void *unused) {
	static char *const command[] = {"true", NULL};
	static char *const environment[] = {NULL};
	static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
	(void)unused;

	need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make / private");
	need(mount("overlay", scratch_root, "overlay", 0, overlay_options), "overlay");
	need(chdir(scratch_root), "chdir");
	need(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
	need(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755"), "dev");
	need(mkdir("dev/pts", 0755), "dev/pts");
	need(mkdir("dev/shm", 01777), "dev/shm");
	need(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666"), "devpts");
	need(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "shm");
	need(mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "sysfs");
	for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
		bind_device(devices[i]);
	need((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	need(umount2(".", MNT_DETACH), "leave the old root");
	execve("/bin/true", command, environment);
	need(-1, "/bin/true");
	return 111;
}

static void make(char *path, size_t size, const char *parent, const char *name) {
	snprintf(path, size, "%s/%s", parent, name);
	if (mkdir(path, 0755) == -1 && errno != EEXIST)
		need(-1, path);
}

int main(int argc, char **argv) {
	static char stack[64 << 10] __attribute__((aligned(16)));
	char upper[2048], work[2048];
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | SIGCHLD, status;

	if (argc < 3) {
		fprintf(stderr, "usage: limit ROOTFS SCRATCH [net]\n");
		return 2;
	}
	make(upper, sizeof upper, argv[2], "upper");
	make(work, sizeof work, argv[2], "work");
	make(scratch_root, sizeof scratch_root, argv[2], "root");
	snprintf(overlay_options, sizeof overlay_options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], upper, work);
	if (argc > 3)
		flags |= CLONE_NEWNET;

	pid_t pid = clone(container, stack + sizeof stack, flags, NULL);
	need(pid, "clone");
	need(waitpid(pid, &status, 0), "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
