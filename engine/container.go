package engine

import (
	"time"

	"hull/monitor"
)

// Config says what runs in a container. Empty fields are filled in from the image at create.
type Config struct {
	Image        string            `json:"image"`
	Platform     string            `json:"platform,omitempty"` // os/arch[/variant] the image has to be for; "" is any
	Hostname     string            `json:"hostname,omitempty"`
	Domainname   string            `json:"domainname,omitempty"`
	User         string            `json:"user,omitempty"` // name or number, with an optional :group
	Tty          bool              `json:"tty,omitempty"`
	OpenStdin    bool              `json:"openStdin,omitempty"`
	StdinOnce    bool              `json:"stdinOnce,omitempty"`
	AttachStdin  bool              `json:"attachStdin,omitempty"`
	AttachStdout bool              `json:"attachStdout,omitempty"`
	AttachStderr bool              `json:"attachStderr,omitempty"`
	Env          []string          `json:"env,omitempty"`        // NAME=value
	Entrypoint   []string          `json:"entrypoint,omitempty"` // nil: the image's
	Cmd          []string          `json:"cmd,omitempty"`
	WorkingDir   string            `json:"workingDir,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	StopSignal   string            `json:"stopSignal,omitempty"`
	StopTimeout  *int              `json:"stopTimeout,omitempty"` // seconds; negative waits for ever
	ExposedPorts []string          `json:"exposedPorts,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"`
	Shell        []string          `json:"shell,omitempty"`  // of a health check's command line; nil is /bin/sh -c
	Health       *Health           `json:"health,omitempty"` // nil: none
}

// Host says how a container is confined and what of the host it gets.
type Host struct {
	Network       string            `json:"network,omitempty"`    // "bridge", "host", "none" or "container:ID"
	MACAddress    string            `json:"macAddress,omitempty"` // of its link; "" is made of its address
	Ports         []PortBinding     `json:"ports,omitempty"`
	PublishIP     string            `json:"publishIp,omitempty"` // where those listen that name no address; "" is everywhere
	PublishAll    bool              `json:"publishAll,omitempty"`
	AutoRemove    bool              `json:"autoRemove,omitempty"`
	Restart       RestartPolicy     `json:"restart,omitzero"`
	NoInit        bool              `json:"noInit,omitempty"` // a person wants none, whatever the configuration says
	Init          bool              `json:"init,omitempty"`   // an init of ours is process 1
	Binds         []string          `json:"binds,omitempty"`  // SOURCE:TARGET[:OPTIONS], as -v
	Mounts        []Mount           `json:"mounts,omitempty"`
	Tmpfs         map[string]string `json:"tmpfs,omitempty"`       // target -> options
	VolumesFrom   []string          `json:"volumesFrom,omitempty"` // CONTAINER[:ro|rw]
	VolumeDriver  string            `json:"volumeDriver,omitempty"`
	CapAdd        []string          `json:"capAdd,omitempty"`
	CapDrop       []string          `json:"capDrop,omitempty"`
	Privileged    bool              `json:"privileged,omitempty"`
	ReadOnly      bool              `json:"readOnly,omitempty"`
	SecurityOpt   []string          `json:"securityOpt,omitempty"`
	Userns        string            `json:"userns,omitempty"` // "" or "host"
	PidMode       string            `json:"pidMode,omitempty"`
	IPCMode       string            `json:"ipcMode,omitempty"`
	UTSMode       string            `json:"utsMode,omitempty"`
	CgroupnsMode  string            `json:"cgroupnsMode,omitempty"`
	GroupAdd      []string          `json:"groupAdd,omitempty"`
	ExtraHosts    []string          `json:"extraHosts,omitempty"` // NAME:ADDRESS
	DNS           []string          `json:"dns,omitempty"`
	DNSSearch     []string          `json:"dnsSearch,omitempty"`
	DNSOptions    []string          `json:"dnsOptions,omitempty"`
	Devices       []Device          `json:"devices,omitempty"`
	DeviceRules   []string          `json:"deviceRules,omitempty"` // "c 10:200 rwm"
	Ulimits       []Ulimit          `json:"ulimits,omitempty"`
	Sysctls       map[string]string `json:"sysctls,omitempty"`
	ShmSize       int64             `json:"shmSize,omitempty"` // bytes; 0 is 64 MiB
	OOMScoreAdj   int               `json:"oomScoreAdj,omitempty"`
	Runtime       string            `json:"runtime,omitempty"`      // name or path of an OCI runtime of others; "": our own
	CgroupParent  string            `json:"cgroupParent,omitempty"` // below every hierarchy; "": the engine's own
	Resources     Resources         `json:"resources,omitzero"`
	MaskedPaths   []string          `json:"maskedPaths,omitzero"`   // nil: the default ones
	ReadonlyPaths []string          `json:"readonlyPaths,omitzero"` // nil: the default ones
	Log           Log               `json:"log,omitzero"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	ConsoleSize   Size              `json:"consoleSize,omitzero"`
	CidFile       string            `json:"cidFile,omitempty"` // kept for inspect only; the client writes it
	Umask         *uint32           `json:"umask,omitempty"`
}

// Mount is one entry of --mount.
type Mount struct {
	Type          string            `json:"type"`             // "bind", "volume", "tmpfs" or "image"
	Source        string            `json:"source,omitempty"` // a path of the host, the name of a volume, the reference of an image
	Target        string            `json:"target"`
	ReadOnly      bool              `json:"readOnly,omitempty"` // with what is mounted below it, where the kernel can
	Propagation   string            `json:"propagation,omitempty"`
	NoRecurse     bool              `json:"noRecurse,omitempty"`   // without what is mounted below the source
	TopReadOnly   bool              `json:"topReadOnly,omitempty"` // ReadOnly leaves what is mounted below it writable
	AllReadOnly   bool              `json:"allReadOnly,omitempty"` // ReadOnly fails where it cannot reach what is mounted below
	CreateHost    bool              `json:"createHost,omitempty"`  // make a missing source
	Subpath       string            `json:"subpath,omitempty"`     // of a volume or image; never leaves it
	NoCopy        bool              `json:"noCopy,omitempty"`      // leave an empty volume empty
	Driver        string            `json:"driver,omitempty"`      // of a volume that is made for it
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Size          int64             `json:"size,omitempty"`    // of a tmpfs, bytes
	Mode          uint32            `json:"mode,omitempty"`    // of a tmpfs
	Options       []string          `json:"options,omitempty"` // of a tmpfs
}

// Device is a device of the host given to the container.
type Device struct {
	Host        string `json:"host"`
	Container   string `json:"container"`
	Permissions string `json:"permissions"` // of "rwm"
}

// Ulimit is one resource limit of the container's first process.
type Ulimit struct {
	Name string `json:"name"` // as in ulimit: "nofile"
	Soft int64  `json:"soft"` // -1 is unlimited
	Hard int64  `json:"hard"`
}

// Resources are the limits of a container's cgroup. Zero is no limit unless said otherwise.
type Resources struct {
	Memory             int64            `json:"memory,omitempty"`            // bytes
	MemorySwap         int64            `json:"memorySwap,omitempty"`        // memory and swap; -1 unlimited; at create 0 becomes twice Memory
	MemoryReservation  int64            `json:"memoryReservation,omitempty"` // bytes
	MemorySwappiness   *int64           `json:"memorySwappiness,omitempty"`
	OOMKillDisable     *bool            `json:"oomKillDisable,omitempty"`
	NanoCPUs           int64            `json:"nanoCpus,omitempty"`
	CPUShares          int64            `json:"cpuShares,omitempty"`
	CPUPeriod          int64            `json:"cpuPeriod,omitempty"` // microseconds
	CPUQuota           int64            `json:"cpuQuota,omitempty"`  // microseconds
	CPURTPeriod        int64            `json:"cpuRtPeriod,omitempty"`
	CPURTRuntime       int64            `json:"cpuRtRuntime,omitempty"`
	CpusetCpus         string           `json:"cpusetCpus,omitempty"`
	CpusetMems         string           `json:"cpusetMems,omitempty"`
	PidsLimit          *int64           `json:"pidsLimit,omitempty"` // nil: DefaultPids; <= 0 unlimited
	BlkioWeight        uint16           `json:"blkioWeight,omitempty"`
	BlkioWeightDevices []WeightDevice   `json:"blkioWeightDevices,omitempty"`
	BlkioReadBps       []ThrottleDevice `json:"blkioReadBps,omitempty"`
	BlkioWriteBps      []ThrottleDevice `json:"blkioWriteBps,omitempty"`
	BlkioReadIOPS      []ThrottleDevice `json:"blkioReadIops,omitempty"`
	BlkioWriteIOPS     []ThrottleDevice `json:"blkioWriteIops,omitempty"`
}

// WeightDevice is the weight of one block device.
type WeightDevice struct {
	Path   string `json:"path"`
	Weight uint16 `json:"weight"`
}

// ThrottleDevice limits a rate of one block device.
type ThrottleDevice struct {
	Path string `json:"path"`
	Rate uint64 `json:"rate"`
}

// Size is that of a terminal, in characters; zero is not known.
type Size struct {
	Height uint16 `json:"height"`
	Width  uint16 `json:"width"`
}

// Log chooses a log driver.
type Log struct {
	Driver  string            `json:"driver,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// Status of a container, in Docker's words.
const (
	StatusCreated    = "created"
	StatusRunning    = "running"
	StatusPaused     = "paused"     // running, its processes frozen
	StatusRestarting = "restarting" // ended, and about to be started again by its policy
	StatusExited     = "exited"
	StatusRemoving   = "removing"
	StatusDead       = "dead"
)

// State is what is known of a container's process.
type State struct {
	Status     string
	Pid        int
	ExitCode   int
	OOMKilled  bool
	Error      string
	StartedAt  time.Time
	FinishedAt time.Time
	Ports      []Port          // of the host, that lead to the running container
	Warnings   []string        // of the start: what was clamped or left out
	Health     *monitor.Health // nil when nothing is tested
	Restarts   int             // by the restart policy, since a person started it

	network *monitor.Network // of a running container
}

// Container is one container as it is on disk, with its state.
type Container struct {
	ID      string
	Name    string // without a leading slash
	Created time.Time
	Image   string   // id of the image it was made from
	Layers  []string // chain ids, lowest first
	Config  Config
	Host    Host
	State   State
	// Mounts are what a person or the image asked for, settled at create: those of the container's own, /proc and the
	// like, are not among them.
	Mounts []MountPoint
	// Warnings of the create.
	Warnings []string
	// Damaged says how the definition is not what was written: such a container is listed and can be removed, no more.
	Damaged string
	// Unread is why the definition or the state could not be read, where that proves nothing about them (no right, no
	// descriptor, a disk that fails): such a container is listed, no more.
	Unread error

	compat32 bool   // the image has 32-bit programs
	step     string // see record.Step; "": it is a person's container
	over     []string
}

// Running reports whether the container has a live process, paused or not.
func (c *Container) Running() bool {
	return c.State.Status == StatusRunning || c.State.Status == StatusPaused
}
