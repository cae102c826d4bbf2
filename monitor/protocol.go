package monitor

import (
	"time"

	"hull/monitor/relay"
	"hull/runtime"
	"hull/trace"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The files of a container that the monitor reads and writes.
//
//	<run>/containers/<id>/            0700, made by the engine before Spawn, removed by the monitor as its last act
//	    config.json                   OCI runtime-spec bundle configuration, written by the engine before the start request
//	    monitor.json                  Config below, written by the engine before the start request
//	    lock                          locked while the container has a monitor: byte 0 from before its fork (see Spawn),
//	                                  byte 1 by the monitor itself, so that F_GETLK tells its pid (see Alive)
//	    sock                          listening unix socket (SOCK_STREAM), 0600
//	    health.json                   Health, while the container runs
//	    monitor.err                   stderr of the monitor; empty unless it crashed
//	    joined                        empty, made by the engine when another container enters namespaces of this one
//	<root>/containers/<id>/
//	    state.json                    State below, replaced atomically by the monitor at start and exit
//	    health.json                   Health, as it was at the last exit
//	    log/                          container.log (json-file), rotated ones container.log.1 ..., or segments
const (
	SpecFile   = "config.json"
	ConfigFile = "monitor.json"
	LockFile   = "lock"
	SocketFile = "sock"
	JoinedFile = "joined"
	StateFile  = "state.json"
	LogDir     = "log"
	LogFile    = "container.log"
)

// IDClaims is where all engines of the machine claim id ranges of user namespaces: symbolic links to run directories.
const IDClaims = "/run/hull-ids"

// MembersSuffix makes of a claim's name that of the directory with the claims of those who share it.
const MembersSuffix = ".d"

// NetworkClaims is, beside the directory of run directories, where addresses are claimed: <network>/<address>, symbolic
// links to run directories.
const NetworkClaims = "networks"

// Config is what the engine tells the monitor about one container, beside the OCI spec.
type Config struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	StateDir string   `json:"stateDir"` // <root>/containers/<id>
	Root     *Overlay `json:"root,omitempty"`
	Cgroup   string   `json:"cgroup"`            // below every hierarchy, e.g. "hull/<id>"
	Seccomp  string   `json:"seccomp,omitempty"` // file of compiled BPF to use instead of compiling spec.Linux.Seccomp
	// Foreign is the OCI runtime that makes the container in place of ours.
	Foreign *runtime.Foreign `json:"foreign,omitempty"`
	Groups  []string         `json:"groups,omitempty"` // names, as in runtime.Config
	Log     LogConfig        `json:"log"`
	// Publish are the ports of the host that are to lead to the container. They are claimed before it is made.
	Publish *relay.Config `json:"publish,omitempty"`
	// OpenStdin keeps the container's stdin open for attached clients; StdinOnce closes it after the first of them leaves.
	OpenStdin bool `json:"openStdin,omitempty"`
	StdinOnce bool `json:"stdinOnce,omitempty"`
	// Network is the container's link to a network; nil when it has none, or that of the host or of another container.
	Network *Network `json:"network,omitempty"`
	// Joins are the containers whose namespaces this one enters; the monitor completes the paths of those in the spec.
	Joins []Join `json:"joins,omitempty"`
	// Memory are the file systems in memory that the container shares with others.
	Memory []Memory `json:"memory,omitempty"`
	// Uses is told of in events when the container begins and ends to use it.
	Uses Uses `json:"uses"`
	// Claims of the container (id range, addresses) are symbolic links to the run directory. They count as long as that
	// exists, so the monitor removes them just before.
	Claims []string `json:"claims,omitempty"`
	// Volatile says that nothing in the writable layer has to survive a power cut (--rm).
	Volatile bool `json:"volatile,omitempty"`
	// OnExit is the command that the monitor becomes as its last act, with the run directory gone and the exit state on
	// disk, when no connected engine has promised to do that work (see Request.Remove) or the one that did has not; empty
	// for none. Used for --rm and, later, restart policies.
	OnExit []string `json:"onExit,omitempty"`
	// Init is runtime.Config.Init.
	Init string `json:"init,omitempty"`
	// Health is nil when nothing is to be tested.
	Health *HealthConfig `json:"health,omitempty"`
	// Events is the directory of the journal, "" for none, and Attributes what every event of the container carries.
	Events     string            `json:"events,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// Warnings of the engine are kept with the container; the runtime's are added to them at start.
	Warnings []string `json:"warnings,omitempty"`
}

// Network is how a container is connected.
type Network struct {
	Link runtime.Link `json:"link"`
}

// Uses is what a container uses while it runs.
type Uses struct {
	Network *NetworkUse `json:"network,omitempty"` // nil when the network is that of another container
	Volumes []VolumeUse `json:"volumes,omitempty"`
}

// NetworkUse is the network of the container, in the words of Docker's events.
type NetworkUse struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Driver string `json:"driver"`
}

// VolumeUse is a volume of the container, in the words of Docker's events.
type VolumeUse struct {
	Name        string `json:"name"`
	Driver      string `json:"driver"`
	Destination string `json:"destination"`
	ReadOnly    bool   `json:"readOnly,omitempty"`
	Propagation string `json:"propagation,omitempty"`
}

// Join is a running container whose namespaces are entered, as state.json told of it.
type Join struct {
	Namespaces []specs.LinuxNamespaceType `json:"namespaces"`
	ID         string                     `json:"id"`
	Pid        int                        `json:"pid"`
	PidStart   uint64                     `json:"pidStart"` // or Pid is another process by now
}

// Overlay is the root file system the runtime mounts: overlayfs of unpacked layers, id-mapped.
type Overlay struct {
	Lower []string `json:"lower"` // topmost first, absolute
	Upper string   `json:"upper"`
	Work  string   `json:"work"`
}

// Log drivers.
const (
	LogJSON     = "json-file" // Docker's files, container.log and container.log.1 ...
	LogLocal    = "local"     // segments, see segment.go
	LogJournald = "journald"  // the journal, and segments for hull logs
	LogSyslog   = "syslog"    // a syslog server, and segments for hull logs
	LogNone     = "none"
)

// LogConfig says where the container's output goes.
type LogConfig struct {
	Driver      string            `json:"driver"`
	MaxSize     int64             `json:"maxSize,omitempty"` // bytes of one file; 0 is the default of 10 MiB, -1 unlimited
	MaxFile     int               `json:"maxFile,omitempty"` // 0 is the default of 3
	Compress    bool              `json:"compress,omitempty"`
	NoCache     bool              `json:"noCache,omitempty"`     // keep no segments beside journald and syslog
	NonBlocking bool              `json:"nonBlocking,omitempty"` // rather lose lines than hold the container up
	Buffer      int64             `json:"buffer,omitempty"`      // bytes of lines that may wait, with NonBlocking
	Attrs       map[string]string `json:"attrs,omitempty"`       // kept with each line
	Fields      map[string]string `json:"fields,omitempty"`      // of each entry in the journal
	Syslog      *SyslogConfig     `json:"syslog,omitempty"`
}

// Segmented says that the files are segments rather than Docker's.
func (c *LogConfig) Segmented() bool { return c.Driver != "" && c.Driver != LogJSON || c.Compress }

// SyslogConfig is a syslog server and how it is spoken to.
type SyslogConfig struct {
	// Network is unix, unixgram, udp, tcp, tcp+tls (through Relay), or local: whatever the host's logger listens at.
	Network  string   `json:"network"`
	Address  string   `json:"address,omitempty"` // a path, or a numeric address and a port
	Facility int      `json:"facility"`
	Format   string   `json:"format,omitempty"` // "", rfc3164, rfc5424, rfc5424micro
	Tag      string   `json:"tag"`
	Hostname string   `json:"hostname"`
	Relay    []string `json:"relay,omitempty"` // the command that sends its stdin over TLS
}

// Status of a container as State records it.
const (
	StatusCreated = "created"
	StatusRunning = "running"
	StatusExited  = "exited"
)

// State is what is known of a container's process, kept in StateFile.
type State struct {
	Status     string    `json:"status"`
	Pid        int       `json:"pid,omitempty"`
	BootID     string    `json:"bootId,omitempty"`   // of the boot in which Pid means something
	PidStart   uint64    `json:"pidStart,omitempty"` // field 22 of /proc/PID/stat: guards against a reused pid
	ExitCode   int       `json:"exitCode"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	Error      string    `json:"error,omitempty"` // why the start failed or the container was lost
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Starts     int       `json:"starts,omitempty"`
	Network    *Network  `json:"network,omitempty"` // while it runs
	// Ends counts the ends that were recorded, failed starts among them. The engine judges each once.
	Ends int `json:"ends,omitempty"`
	// Ran is how long the container ran that ended, by a clock that nobody sets.
	Ran time.Duration `json:"ran,omitempty"`
	// Unhealthy says that the monitor ended the container because it was.
	Unhealthy bool     `json:"unhealthy,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	// Ports are those of the host that lead to the container, as long as it has a monitor.
	Ports []relay.Port `json:"ports,omitempty"`
}

// Each connection carries one request (but see OpPrepare): a JSON line from the client, a JSON line in answer, then, for attach
// and a started exec, the stream. Before it the monitor says that it has taken the connection, and does not leave
// while the connection is open.
//
//	engine                                   monitor
//	                                       ←  here\n                  or ending\n: no start, attach or exec any more
//	  {"op":"attach","stdout":true,...}\n  →
//	                                       ←  {"ok":true}\n          or {"kind":"conflict","error":"..."}\n
//	  raw stdin, half-close = EOF          →
//	                                       ←  raw terminal bytes, or frames of the Docker stream format
//	                                          (1 byte stream, 3 zero, 4 bytes length big-endian, payload)
//
// The end of the monitor's stream is the end of the output: after it the exit state is known and on disk.
const (
	OpPrepare    = "prepare"     // make what a start needs, ahead of an OpStart with Prepared; no answer, another request follows on the connection
	OpStart      = "start"       // run the container; answers once execve succeeded or failed
	OpAttach     = "attach"      // stream; valid before start too
	OpWait       = "wait"        // answers at the next exit, after the state is on disk
	OpSignal     = "signal"      // send Signal to the init process, through its pidfd
	OpResize     = "resize"      // Width, Height; of the terminal of the container, or of exec Exec
	OpExecCreate = "exec-create" // register Process; answers with its id in Exec
	OpExecStart  = "exec-start"  // run exec Exec; stream unless Detach
	OpExecState  = "exec-state"  // answers with ExecState of Exec
	OpState      = "state"       // answers with the State in memory, and Busy
	OpRename     = "rename"      // Name is what events call the container from now on
	OpCancel     = "cancel"      // a start that waits for its Delay does not happen; ErrConflict when there is none
	OpFreeze     = "freeze"      // the processes stand still until the connection ends, whoever ends it
	OpOnExit     = "on-exit"     // replaces Config.OnExit of the running container by OnExit
)

// Version of what is said between engine and monitor. A monitor lives as long as its container, so after an upgrade an
// engine meets monitors of every version before its own. What is there keeps its meaning; what is new has a new name,
// and a monitor that does not know it says so ("unknown request"). The greeting "here" is followed by the version.
const Version = 2

// What the monitor says first on each connection.
const (
	greetHere   = "here"
	greetEnding = "ending" // the container has ended
)

// Request is the first line of a connection.
type Request struct {
	Op     string `json:"op"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
	// Remove, with OpWait: this engine will act on the exit (removal of a --rm container). The monitor runs
	// OnExit only if the connection ends while the container's StateDir still exists.
	Remove bool `json:"remove,omitempty"`
	// Tether, with OpWait: the container is killed when the connection ends before it. Whoever runs it for itself alone need
	// not outlive it to clean up.
	Tether bool `json:"tether,omitempty"`
	// Prepared, with OpStart: the files are those of the OpPrepare before. Otherwise what that made is thrown away.
	Prepared bool `json:"prepared,omitempty"`
	// Now, with OpWait: answer at once when the container is not running (condition not-running).
	Now        bool           `json:"now,omitempty"`
	Signal     int            `json:"signal,omitempty"`
	Width      uint16         `json:"width,omitempty"`
	Height     uint16         `json:"height,omitempty"`
	Exec       string         `json:"exec,omitempty"`
	Process    *specs.Process `json:"process,omitempty"`    // Terminal and ConsoleSize count; exec-create
	Privileged bool           `json:"privileged,omitempty"` // exec-create: no seccomp
	Detach     bool           `json:"detach,omitempty"`
	Name       string         `json:"name,omitempty"`
	DetachKeys string         `json:"detachKeys,omitempty"` // exec-create
	Trace      bool           `json:"trace,omitempty"`
	// Delay, with OpStart: answer at once and run the container so much later, unless OpCancel comes before.
	Delay  time.Duration `json:"delay,omitempty"`
	OnExit []string      `json:"onExit,omitempty"`
}

// Response answers a Request.
type Response struct {
	OK        bool         `json:"ok,omitempty"`
	Kind      string       `json:"kind,omitempty"`  // errdef kind, by its name: "invalid", "not-found", "conflict", "no-command", "cannot-run", ...
	Error     string       `json:"error,omitempty"` // for the person who typed
	State     *State       `json:"state,omitempty"`
	Port      *relay.Port  `json:"port,omitempty"` // of the host, when a start failed because it is not to be had
	Exec      string       `json:"exec,omitempty"`
	ExecState *ExecState   `json:"execState,omitempty"`
	Busy      bool         `json:"busy,omitempty"` // anywhere from a start that waits for its Delay to the end
	Trace     []trace.Step `json:"trace,omitempty"`
}

// ExecState is what is known of one exec. Kept by the monitor as long as it lives.
type ExecState struct {
	ID                                string         `json:"id"`
	Running                           bool           `json:"running"`
	Started                           bool           `json:"started"`
	Pid                               int            `json:"pid,omitempty"`
	ExitCode                          int            `json:"exitCode"`
	Process                           *specs.Process `json:"process,omitempty"`
	OpenStdin, OpenStdout, OpenStderr bool
	DetachKeys                        string `json:"detachKeys,omitempty"` // of who created it, for who starts it
}
