package engine

import (
	"cmp"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"

	"hull/state"

	"golang.org/x/sys/unix"
)

// The files /etc/hostname, /etc/hosts and /etc/resolv.conf of a container are in its directory and bound into it, so that
// they are there whatever its image and its root file system allow, and belong to no layer. They are written at each
// start. What a container writes into its resolv.conf stays: a time stamp of a whole second says that nobody has.

const (
	hostnameFile = "hostname"
	hostsFile    = "hosts"
	resolvFile   = "resolv.conf"
)

// file is one that is bound into the container from the host.
type file struct{ target, source string }

// generate writes the files of a container in its directory. One that lives in another's network has that one's.
func (b *builder) generate(dir string) error {
	if b.shared.sharesNetwork() {
		return b.borrow()
	}
	hosts, err := b.hosts()
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, content string }{
		{hostnameFile, b.c.Config.Hostname + "\n"},
		{hostsFile, hosts},
		{resolvFile, ""},
	} {
		p := filepath.Join(dir, f.name)
		b.files = append(b.files, file{"/etc/" + f.name, p})
		switch {
		case b.dry:
		case f.name == resolvFile:
			if ours(p) {
				err = writeResolv(b.ids.root(), p, resolvConf(&b.c.Host))
			} else {
				err = unix.Lchown(p, b.ids.root(), b.ids.root()) // of this start's ids
			}
		default:
			err = writeFor(b.ids.root(), p, f.content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// borrow takes host name and files of the container whose network this one lives in.
func (b *builder) borrow() error {
	id, _ := other(b.c.Host.Network)
	for range 32 { // a chain of containers that no longer ends
		r, err := b.e.readRecord(b.e.dir(id))
		if err != nil {
			return err
		}
		next, ok := other(r.Host.Network)
		if ok {
			id = next
			continue
		}
		if b.c.Host.UTSMode != modeHost {
			b.spec.Hostname, b.spec.Domainname = r.Config.Hostname, r.Config.Domainname
		}
		for _, name := range []string{hostnameFile, hostsFile, resolvFile} {
			b.files = append(b.files, file{"/etc/" + name, filepath.Join(b.e.dir(id), name)})
		}
		return nil
	}
	return errdef.Invalid("the containers that --network names live in each other's networks")
}

// writeFor writes a file that belongs to owner and that everybody in the container may read, whatever the umask of who
// started it. In place and not by rename: it may be bound already. Raw calls, since os.File asks the poller first.
func writeFor(owner int, path, content string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, owner, owner); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	if err := unix.Fchmod(fd, 0o644); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return rewrite(fd, path, content)
}

// rewrite changes what is in a file that somebody may be reading: it is never empty in between.
func rewrite(fd int, path, content string) error {
	if n, err := unix.Pwrite(fd, []byte(content), 0); err != nil || n < len(content) {
		return &fs.PathError{Op: "write", Path: path, Err: cmp.Or(err, error(io.ErrShortWrite))}
	}
	if err := unix.Ftruncate(fd, int64(len(content))); err != nil {
		return &fs.PathError{Op: "truncate", Path: path, Err: err}
	}
	return nil
}

// writeResolv is writeFor with the mark that the content is ours.
func writeResolv(owner int, path, content string) error {
	if err := writeFor(owner, path, content); err != nil {
		return err
	}
	now := unix.Timespec{Sec: time.Now().Unix()}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "set times of", Path: path, Err: err}
	}
	return nil
}

// ours reports whether the file has the mark of writeResolv, or is not there.
func ours(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) != nil || st.Mtim.Nsec == 0
}

// maxResolv is more than any resolv.conf of ours has, in bytes.
const maxResolv = 64 << 10

// followHost brings the resolv.conf of a running container up to date after the host's has changed.
func (e *Engine) followHost(c *Container) error {
	path := filepath.Join(e.dir(c.ID), resolvFile)
	var have, host unix.Stat_t
	if c.State.Pid == 0 || unix.Lstat(path, &have) != nil || have.Mtim.Nsec != 0 || unix.Stat(hostResolv, &host) != nil || host.Mtim.Sec < have.Mtim.Sec {
		return nil
	}
	want := resolvConf(&c.Host)
	// Bounded, for the container can write it, and set its times: one that is larger is not ours any more.
	if now, err := state.Read(path, maxResolv); err != nil || string(now) == want {
		return nil
	}
	return writeResolv(int(have.Uid), path, want)
}

const localHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// hosts is the content of /etc/hosts.
func (b *builder) hosts() (string, error) {
	content := localHosts
	if b.c.Host.Network == modeHost {
		if host, err := os.ReadFile("/etc/hosts"); err == nil {
			content = strings.TrimSuffix(string(host), "\n") + "\n"
		}
	}
	for _, x := range b.c.Host.ExtraHosts {
		name, addr, _ := cutHost(x)
		addrs := []string{addr}
		if addr == hostGateway {
			var err error
			if addrs, err = b.gateways(); err != nil {
				return "", err
			}
		}
		for _, a := range addrs {
			content += a + "\t" + name + "\n"
		}
	}
	if p := b.endpoint; p != nil {
		names := b.c.Config.Hostname
		if d := b.c.Config.Domainname; d != "" {
			names = b.c.Config.Hostname + "." + d + " " + names
		}
		for _, a := range []netip.Addr{p.addr, p.net.In6(p.addr)} {
			if a.IsValid() {
				content += a.String() + "\t" + names + "\n"
			}
		}
	}
	return content, nil
}

// hostGateway, as the address of --add-host, is the host as the container reaches it.
const hostGateway = "host-gateway"

func (b *builder) gateways() ([]string, error) {
	switch {
	case b.endpoint != nil:
		out := []string{b.endpoint.net.IPv4.Gateway.String()}
		if six := b.endpoint.net.IPv6; !six.IsZero() {
			out = append(out, six.Gateway.String())
		}
		return out, nil
	case b.c.Host.Network == modeHost:
		return []string{"127.0.0.1"}, nil
	}
	return nil, errdef.Invalid("--add-host NAME:host-gateway: a container with --network %s reaches no host", b.c.Host.Network)
}

// Where hosts say whom to ask for names. systemd-resolved writes those it asks itself to the second file; in the first one
// stands only its own loopback address then, where no container reaches it.
const (
	hostResolv    = "/etc/resolv.conf"
	systemdResolv = "/run/systemd/resolve/resolv.conf"
	systemdStub   = "127.0.0.53"
)

// resolver is a resolv.conf(5).
type resolver struct {
	servers, search, options []string
}

func parseResolver(s string) resolver {
	var r resolver
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search", "domain":
			r.search = f[1:] // the last one counts
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

// hostResolver is whom the host asks, as far as others can reach them.
func hostResolver(network string) resolver {
	content, _ := os.ReadFile(hostResolv)
	r := parseResolver(string(content))
	if network == modeHost {
		return r
	}
	if len(r.servers) == 1 && r.servers[0] == systemdStub {
		if content, err := os.ReadFile(systemdResolv); err == nil {
			r = parseResolver(string(content))
		}
	}
	r.servers = slices.DeleteFunc(r.servers, func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err != nil || a.IsLoopback() || a.IsUnspecified() || a.Zone() != "" // a zone is a link of the host's
	})
	if len(r.servers) == 0 {
		r.servers = publicServers()
	}
	return r
}

// publicServers are asked when the host asks nobody but itself, as Docker does: a container could resolve nothing.
func publicServers() []string { return []string{"8.8.8.8", "8.8.4.4"} }

// resolvConf is the content of /etc/resolv.conf: what a person says replaces what the host says, line by line.
func resolvConf(h *Host) string {
	if h.Network == modeHost && len(h.DNS)+len(h.DNSSearch)+len(h.DNSOptions) == 0 {
		content, _ := os.ReadFile(hostResolv)
		return string(content)
	}
	r := hostResolver(h.Network)
	if len(h.DNS) > 0 {
		r.servers = h.DNS
	}
	if len(h.DNSSearch) > 0 {
		r.search = h.DNSSearch
	}
	if slices.Equal(r.search, []string{"."}) { // docker run --dns-search=. : none
		r.search = nil
	}
	if len(h.DNSOptions) > 0 {
		r.options = h.DNSOptions
	}
	s := "# Written by hull after " + hostResolv + " of the host. Once changed in the container it is left alone.\n"
	for _, a := range r.servers {
		s += "nameserver " + a + "\n"
	}
	if len(r.search) > 0 {
		s += "search " + strings.Join(r.search, " ") + "\n"
	}
	if len(r.options) > 0 {
		s += "options " + strings.Join(r.options, " ") + "\n"
	}
	return s
}
