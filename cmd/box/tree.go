package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// epoch is the time of every file: images of the same busybox are the same bytes.
func epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// A file of the image. A directory's path ends in "/"; a symbolic link has a target.
type file struct {
	mode   int64
	data   string
	target string
}

func dir(mode int64) file      { return file{mode: mode} }
func text(s string) file       { return file{mode: 0o644, data: s} }
func link(target string) file  { return file{mode: 0o777, target: target} }
func program(data []byte) file { return file{mode: 0o755, data: string(data)} }
func secret(s string) file     { return file{mode: 0o640, data: s} }

// tree is everything in the image, by path. Empty files are where the engine mounts its own.
func tree(bb *busybox) map[string]file {
	t := map[string]file{
		"bin/": dir(0o755), "sbin": link("bin"), "usr/": dir(0o755), "usr/bin": link("../bin"), "usr/sbin": link("../bin"),
		"dev/": dir(0o755), "proc/": dir(0o555), "sys/": dir(0o555), "run/": dir(0o755), "mnt/": dir(0o755),
		"home/": dir(0o755), "root/": dir(0o700), "tmp/": dir(0o1777),
		"var/": dir(0o755), "var/log/": dir(0o755), "var/tmp/": dir(0o1777), "var/run": link("../run"), "var/www/": dir(0o755),
		"var/spool/": dir(0o755), "var/spool/cron/": dir(0o755), "var/spool/cron/crontabs/": dir(0o755),
		"etc/": dir(0o755), "usr/share/": dir(0o755), "usr/share/doc/": dir(0o755), "usr/share/doc/busybox/": dir(0o755),

		"etc/passwd": text(passwd), "etc/group": text(group), "etc/shadow": secret(shadow),
		"etc/hostname": text(""), "etc/hosts": text(""), "etc/resolv.conf": text(""),
		"etc/shells": text("/bin/sh\n/bin/ash\n"), "etc/profile": text(profile), "etc/shrc": text(shrc),
		"etc/os-release": text(osRelease(bb)), "etc/issue": text("Hull box\n"),
		"etc/services": text(services), "etc/protocols": text(protocols),
		"var/www/index.html": text(index),

		"usr/share/doc/busybox/copyright": text(string(bb.copyright)),
		"usr/share/doc/busybox/README":    text(source(bb)),
		"bin/busybox":                     program(bb.program),
	}
	for _, name := range bb.applets {
		if name != "busybox" {
			t["bin/"+name] = link("busybox")
		}
	}
	return t
}

// layer is the tree as an uncompressed tar.
func layer(t map[string]file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		f := t[name]
		h := &tar.Header{Name: name, Mode: f.mode, Size: int64(len(f.data)), Linkname: f.target, ModTime: epoch(),
			Typeflag: tar.TypeReg, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
		switch {
		case f.target != "":
			h.Typeflag = tar.TypeSymlink
		case strings.HasSuffix(name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", name, err)
		}
		if _, err := w.Write([]byte(f.data)); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func osRelease(bb *busybox) string {
	return fmt.Sprintf("NAME=\"Hull box\"\nID=hull-box\nPRETTY_NAME=\"Hull box (%s)\"\n", bb.version)
}

func source(bb *busybox) string {
	return bb.version + `, as Debian built it (package ` + pkg + `).
It is free software under the GNU General Public License, version 2: see the file copyright beside this one.
Its source is Debian's source package busybox: apt-get source busybox, or https://sources.debian.org/src/busybox/
`
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
box:x:1000:1000:an ordinary user:/tmp:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
`

const group = `root:x:0:
daemon:x:1:
tty:x:5:
disk:x:6:
www-data:x:33:
users:x:100:
box:x:1000:
nogroup:x:65534:
`

// No password opens an account of the image.
const shadow = `root:*:::::::
daemon:*:::::::
www-data:*:::::::
box:*:::::::
nobody:*:::::::
`

// profile is read by login shells, shrc by every interactive one: the image sets ENV to it.
const profile = `export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
export ENV=/etc/shrc
umask 022
`

const shrc = `# Every interactive shell reads this file: the image sets ENV to it.
PS1='\[\e[1;32m\]\u@\h\[\e[0m\]:\[\e[1;34m\]\w\[\e[0m\]\$ '
alias ls='ls --color=auto'
alias ll='ls -l'
alias la='ls -la'
alias ..='cd ..'
export PAGER=less EDITOR=vi
`

const services = `ssh 22/tcp
domain 53/tcp
domain 53/udp
http 80/tcp
ntp 123/udp
https 443/tcp
syslog 514/udp
`

const protocols = `ip 0 IP
icmp 1 ICMP
tcp 6 TCP
udp 17 UDP
ipv6 41 IPv6
ipv6-icmp 58 IPv6-ICMP
`

const index = `<!doctype html>
<title>box</title>
<p>This page comes from httpd in a container of box.</p>
`
