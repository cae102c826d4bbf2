package runtime

import (
	"encoding/binary"

	"hull/errdef"
	"hull/kernel"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pty in the container's own devpts, sends its master to the parent and makes its slave the
// controlling terminal. Everything is done on descriptors: /dev/pts/N and /dev/console are names that an image or
// another container sharing the mount could put something else behind (CVE-2025-52565).
func (b *boot) openTerminal() error {
	if !b.process.Terminal {
		return nil
	}
	if !b.hasPts {
		return errdef.Invalid("a terminal needs a devpts mount on /dev/pts")
	}
	b.pty(b.devpts)
	return nil
}

// pty opens a pty in the devpts whose root is open as devpts.
func (b *boot) pty(devpts any) {
	p := b.prog
	master := p.Call("open pty", unix.SYS_OPENAT, devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0).Result()
	unlock := make([]byte, 4)
	p.Call("unlock pty", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, unlock)
	if size := b.process.ConsoleSize; size != nil {
		ws := make([]byte, 8)
		binary.NativeEndian.PutUint16(ws[0:], uint16(size.Height))
		binary.NativeEndian.PutUint16(ws[2:], uint16(size.Width))
		p.Call("set terminal size", unix.SYS_IOCTL, master, unix.TIOCSWINSZ, ws)
	}
	slave := p.Call("open terminal", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC).Result()
	p.Call("chown terminal", unix.SYS_FCHOWN, slave, b.user.uid, int(-1))
	b.sendMaster(master)
	if b.rootReg != 0 {
		tree := p.Call("bind /dev/console", unix.SYS_OPEN_TREE, slave, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Result()
		b.attach("bind /dev/console", tree, b.ensureFile("/dev/console"))
		b.closeReg(tree)
	}
	p.Call("set controlling terminal", unix.SYS_IOCTL, slave, unix.TIOCSCTTY, 0)
	for fd := range 3 {
		p.Call("set stdio", unix.SYS_DUP3, slave, fd, 0)
	}
}

// sendMaster passes the descriptor over the terminal socket: a msghdr with one SCM_RIGHTS message, its descriptor
// filled in by the child.
func (b *boot) sendMaster(master kernel.Reg) {
	p := b.prog
	control := make([]byte, unix.CmsgSpace(4))
	copy(control, unix.UnixRights(0))
	data := []byte{0}
	iov := &unix.Iovec{Base: &data[0]}
	iov.SetLen(1)
	hdr := &unix.Msghdr{Iov: iov, Control: &control[0]}
	hdr.SetIovlen(1)
	hdr.SetControllen(len(control))
	p.Store(control, unix.CmsgLen(0), master)
	p.Call("send pty", unix.SYS_SENDMSG, b.terminal[1], ptr(hdr), unix.MSG_NOSIGNAL)
}
