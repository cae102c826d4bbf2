package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"hull/errdef"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// options are the flags of run and create that describe a container.
type options struct {
	flags *pflag.FlagSet

	name, cidfile, platform, pull string
	quiet                         bool

	attach                                   listFlag
	stdin, tty, privileged, readOnly, remove bool
	health                                   healthFlags
	restart                                  string
	init                                     bool
	user, dir, hostname, domainname          string
	entrypoint, stopSignal                   string
	pid, ipc, uts, userns, cgroupns          string
	stopTimeout                              int
	env, envFiles, labels, labelFiles        listFlag
	annotations, sysctls, logOpts            mapFlag
	net                                      netOptions
	logDriver                                string
	tmpfs, volumes, volumesFrom, devices     listFlag
	mountSpecs                               mountFlag
	volumeDriver                             string
	capAdd, capDrop, groupAdd, security      listFlag
	ulimits                                  ulimitFlag
	shmSize                                  bytesFlag
	limits                                   limits
	oomScore                                 int
	swappiness                               int64
	oomKillDisable                           bool
	deviceRules                              listFlag
	cgroupParent, runtime                    string
	publish, expose                          listFlag
	publishAll                               bool
}

func containerFlags(f *pflag.FlagSet) *options {
	o := &options{flags: f}
	f.SetInterspersed(false)

	f.StringVar(&o.name, "name", "", "Name of the container")
	f.StringVar(&o.cidfile, "cidfile", "", "Write the id of the container to this file")
	f.StringVar(&o.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform of the image, os/arch[/variant]")
	f.StringVar(&o.pull, "pull", "missing", "When to pull the image: always, missing or never")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Say nothing about pulling")

	f.VarP(&o.attach, "attach", "a", "Connect stdin, stdout or stderr")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "Keep stdin open, and connect it")
	f.BoolVarP(&o.tty, "tty", "t", false, "Give it a terminal")
	f.BoolVar(&o.remove, "rm", false, "Remove the container when it exits")
	f.StringVar(&o.entrypoint, "entrypoint", "", "Replace the entrypoint of the image")
	f.VarP(&o.env, "env", "e", "Set environment variables")
	f.Var(&o.envFiles, "env-file", "Read environment variables from a file")
	f.StringVarP(&o.user, "user", "u", "", "User: <name|uid>[:<group|gid>]")
	f.Var(&o.groupAdd, "group-add", "Groups to join beside the user's")
	f.StringVarP(&o.dir, "workdir", "w", "", "Working directory in the container")
	f.VarP(&o.labels, "label", "l", "Set labels")
	f.Var(&o.labelFiles, "label-file", "Read labels from a file")
	f.Var(&o.annotations, "annotation", "Set annotations, which are passed to the runtime")
	f.StringVar(&o.stopSignal, "stop-signal", "", "Signal that asks the container to stop")
	f.IntVar(&o.stopTimeout, "stop-timeout", 0, "Seconds from that signal to SIGKILL")
	f.StringVar(&o.restart, "restart", "no", "When it is started again: no, on-failure[:N], always, unless-stopped")
	f.BoolVar(&o.init, "init", false, "Run an init as process 1, which passes signals on and reaps")
	o.health.add(f)

	f.StringVarP(&o.hostname, "hostname", "h", "", "Host name of the container")
	f.StringVar(&o.domainname, "domainname", "", "NIS domain name of the container")
	o.net.add(f)
	f.StringVar(&o.pid, "pid", "", "PID namespace: host, or container:NAME for that of another container")
	f.StringVar(&o.ipc, "ipc", "", "IPC namespace: none, private, shareable, host, or container:NAME")
	f.StringVar(&o.uts, "uts", "", "UTS namespace: host for that of the host")
	f.StringVar(&o.userns, "userns", "", "User namespace: host for that of the host")
	f.StringVar(&o.cgroupns, "cgroupns", "", "Cgroup namespace: private or host")

	f.VarP(&o.publish, "publish", "p", "Let a port of the host lead to one of the container: [[ip:]hostport:]port[/udp]")
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports on free ports of the host")
	f.Var(&o.expose, "expose", "Say that the container serves a port or a range of ports")

	f.StringVar(&o.runtime, "runtime", "", "OCI runtime to use in place of Hull's own: a name (hull info lists them) or a path")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", "Cgroup to put the container's into")
	f.VarP(&o.volumes, "volume", "v", "Mount a volume or a directory of the host: [name:|/source:]/target[:ro]")
	f.Var(&o.mountSpecs, "mount", "Mount a file system: type=bind|volume|tmpfs|image,source=...,target=...")
	f.Var(&o.volumesFrom, "volumes-from", "Mount the volumes of another container: container[:ro]")
	f.StringVar(&o.volumeDriver, "volume-driver", "", "Driver of volumes made for it")
	f.Var(&o.tmpfs, "tmpfs", "Mount a directory in memory: /target[:options]")
	f.BoolVar(&o.readOnly, "read-only", false, "Make the root file system read-only")
	f.Var(&o.shmSize, "shm-size", "Size of /dev/shm")

	f.Var(&o.capAdd, "cap-add", "Add capabilities")
	f.Var(&o.capDrop, "cap-drop", "Drop capabilities")
	f.Var(&o.security, "security-opt", "Security options (no-new-privileges, seccomp=FILE, apparmor=PROFILE, ...)")
	f.BoolVar(&o.privileged, "privileged", false, "Give it every right on this host")
	f.Var(&o.devices, "device", "Give it a device of the host: /dev/x[:/dev/y][:rwm]")
	f.Var(&o.deviceRules, "device-cgroup-rule", "Allow it devices by number: 'c 10:200 rwm'")
	f.Var(&o.ulimits, "ulimit", "Set limits: name=soft[:hard]")
	f.Var(&o.sysctls, "sysctl", "Set kernel parameters of its namespaces")
	f.IntVar(&o.oomScore, "oom-score-adj", 0, "How soon it is killed when memory runs out (-1000 to 1000)")

	o.limits.add(f)
	f.Int64Var(&o.swappiness, "memory-swappiness", -1, "How soon its memory goes to swap (0 to 100; cgroup v1 only)")
	f.BoolVar(&o.oomKillDisable, "oom-kill-disable", false, "Stop it instead of killing in it when memory runs out (cgroup v1 only)")

	f.StringVar(&o.logDriver, "log-driver", "", "Where output is kept: json-file, local or none")
	f.Var(&o.logOpts, "log-opt", "Options of the log driver (max-size, max-file)")
	return o
}

const (
	notYet  = "is not in this version yet"
	windows = "is for Windows containers only"
)

// refuseFlags adds what Docker's run and create know and this version does not, each with its reason.
func refuseFlags(f *pflag.FlagSet) {
	refusedFlags(f, []refused{
		{name: "gpus", why: "needs CDI devices, which this version does not have yet"},
		{name: "storage-opt", why: "is supported only for overlay over xfs with 'pquota' mount option, which Hull does not use: a limit of the writable layer is not there"},
		{name: "use-api-socket", boolean: true, why: "needs the served API, which this version does not have yet"},
		{name: "isolation", harmless: "default", why: windows},
		{name: "cpu-count", why: windows},
		{name: "cpu-percent", why: windows},
		{name: "io-maxbandwidth", why: windows},
		{name: "io-maxiops", why: windows},
	})
	f.Bool("disable-content-trust", true, "Accepted for Docker's sake, without effect")
	f.Lookup("disable-content-trust").Hidden = true
}

// request is the container the flags, the image and the command ask for.
func (o *options) request(image string, command []string) (container.CreateRequest, error) {
	var fail error
	config, err := o.config(image, command)
	fail = first(fail, err)
	host, err := o.host()
	fail = first(fail, err)
	if fail == nil {
		fail = o.ports(config, host)
	}
	n := new(network.NetworkingConfig)
	if fail == nil {
		fail = o.net.into(host, n)
	}
	return container.CreateRequest{Config: config, HostConfig: host, NetworkingConfig: n}, fail
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (o *options) config(image string, command []string) (*container.Config, error) {
	env, err := environment(o.envFiles, o.env)
	if err != nil {
		return nil, err
	}
	labels, err := labels(o.labelFiles, o.labels)
	if err != nil {
		return nil, err
	}
	c := &container.Config{
		Hostname: o.hostname, Domainname: o.domainname, User: o.user, Tty: o.tty, OpenStdin: o.stdin,
		Env: env, Cmd: command, Image: image, WorkingDir: o.dir, Labels: labels, StopSignal: o.stopSignal,
	}
	if err := o.attached(c); err != nil {
		return nil, err
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	if o.flags.Changed("entrypoint") {
		c.Entrypoint = []string{o.entrypoint} // an empty one resets the image's
	}
	if o.flags.Changed("stop-timeout") {
		c.StopTimeout = &o.stopTimeout
	}
	for _, s := range o.volumes {
		if target, anonymous, err := bind(s); err == nil && anonymous {
			if c.Volumes == nil {
				c.Volumes = map[string]struct{}{}
			}
			c.Volumes[target] = struct{}{}
		}
	}
	c.Healthcheck, err = o.health.check()
	return c, err
}

// attached sets which streams the client connects: those of -a, or stdout and stderr, with -i stdin too.
func (o *options) attached(c *container.Config) error {
	if len(o.attach) == 0 {
		c.AttachStdin, c.AttachStdout, c.AttachStderr = o.stdin, true, true
		return nil
	}
	for _, s := range o.attach {
		switch strings.ToLower(s) {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		default:
			return errdef.Invalid("invalid argument %q for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR", s)
		}
	}
	return nil
}

func (o *options) host() (*container.HostConfig, error) {
	policy, err := restartPolicy(o.restart)
	if err != nil {
		return nil, err
	}
	if !o.flags.Changed("restart") {
		policy.Name = "" // the engine's configuration may say
	}
	if o.remove && !policy.IsNone() {
		return nil, errdef.Invalid("conflicting options: cannot specify both --restart and --rm")
	}
	security, masked, readonly, err := securityOptions(o.security)
	if err != nil {
		return nil, err
	}
	h := &container.HostConfig{
		ContainerIDFile: o.cidfile, AutoRemove: o.remove, Privileged: o.privileged, ReadonlyRootfs: o.readOnly,
		NetworkMode: "default", PidMode: container.PidMode(o.pid), IpcMode: container.IpcMode(o.ipc),
		UTSMode: container.UTSMode(o.uts), UsernsMode: container.UsernsMode(o.userns),
		CgroupnsMode: container.CgroupnsMode(o.cgroupns), CapAdd: capabilities(o.capAdd), CapDrop: capabilities(o.capDrop), GroupAdd: o.groupAdd,
		SecurityOpt: security, MaskedPaths: masked, ReadonlyPaths: readonly, OomScoreAdj: o.oomScore, Runtime: o.runtime,
		ShmSize: int64(o.shmSize), Sysctls: o.sysctls, Annotations: o.annotations,
		LogConfig:     container.LogConfig{Type: o.logDriver, Config: o.logOpts},
		RestartPolicy: policy,
	}
	if o.flags.Changed("init") {
		h.Init = &o.init
	}
	if err := o.health.act(h); err != nil {
		return nil, err
	}
	if err := o.modes(h); err != nil {
		return nil, err
	}
	if err := o.mounts(h); err != nil {
		return nil, err
	}
	return h, o.resources(h)
}

// modes checks those words whose mistakes would otherwise be told in terms of the API.
func (o *options) modes(h *container.HostConfig) error {
	switch {
	case !h.PidMode.Valid():
		return errdef.Invalid("--pid: invalid PID mode")
	case !h.IpcMode.Valid():
		return errdef.Invalid("--ipc: invalid IPC mode: %s", o.ipc)
	case !h.UTSMode.Valid():
		return errdef.Invalid("--uts: invalid UTS mode")
	case !h.UsernsMode.Valid() && o.userns != "private": // which Docker lacks, having no configured host
		return errdef.Invalid("--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return errdef.Invalid("--cgroupns: invalid CGROUP mode")
	case o.logDriver == "none" && len(o.logOpts) > 0:
		return errdef.Invalid("invalid logging opts for driver none")
	}
	switch o.pull {
	case "always", "missing", "never":
		return nil
	}
	return errdef.Invalid("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", o.pull)
}

func (o *options) mounts(h *container.HostConfig) error {
	for _, s := range o.volumes {
		b, anonymous, err := bind(s)
		if err != nil {
			return err
		}
		if !anonymous { // those are in the Config
			h.Binds = append(h.Binds, b)
		}
	}
	h.Mounts, h.VolumesFrom, h.VolumeDriver = o.mountSpecs, o.volumesFrom, o.volumeDriver
	for _, s := range o.tmpfs {
		target, opts, err := tmpfs(s)
		if err != nil {
			return err
		}
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[target] = opts
	}
	return nil
}

func (o *options) resources(h *container.HostConfig) error {
	r := &h.Resources
	o.limits.set(r, o.flags)
	if o.flags.Changed("memory-swappiness") {
		r.MemorySwappiness = &o.swappiness
	}
	if o.oomKillDisable {
		r.OomKillDisable = &o.oomKillDisable
	}
	r.DeviceCgroupRules, r.CgroupParent = o.deviceRules, o.cgroupParent
	r.Ulimits = o.ulimits.list()
	for _, s := range o.devices {
		d, err := device(s)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, d)
	}
	return nil
}

// capabilities brings names into the form CAP_NET_ADMIN, each once; ALL stays.
func capabilities(names []string) []string {
	var all []string
	for _, n := range names {
		n = strings.ToUpper(strings.TrimSpace(n))
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxProfile bounds a seccomp profile; Docker's default has 12 KiB.
const maxProfile = 4 << 20

// securityOptions reads the files options name, as the engine may be elsewhere. systempaths=unconfined becomes
// empty, not nil, lists of masked and read-only paths.
func securityOptions(opts []string) (out, masked, readonly []string, err error) {
	for _, s := range opts {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			k, v, ok = strings.Cut(s, ":") // Docker's form before 2015, still read
		}
		switch {
		case !ok && k != "no-new-privileges":
			return nil, nil, nil, errdef.Invalid("Invalid --security-opt: %q", s)
		case k == "systempaths" && v == "unconfined":
			masked, readonly = []string{}, []string{}
			continue
		case k == "seccomp" && v != "unconfined" && v != "builtin":
			if s, err = profile(v); err != nil {
				return nil, nil, nil, err
			}
		}
		out = append(out, s)
	}
	return out, masked, readonly, nil
}

func profile(file string) (string, error) {
	fi, err := os.Stat(file)
	if err == nil && fi.Size() > maxProfile {
		return "", errdef.Invalid("seccomp profile %s has %s, more than any kernel takes", file, size(fi.Size()))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", errdef.Invalid("opening seccomp profile (%s) failed: %w", file, plainPathError(err))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return "", errdef.Invalid("compacting json for seccomp profile (%s) failed: %w", file, err)
	}
	return "seccomp=" + compact.String(), nil
}
