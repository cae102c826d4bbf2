package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/config"
)

// unifiedControllers is a file of cgroup v2 where it is mounted beside v1: the controllers that v1 has left to it.
const unifiedControllers = "/sys/fs/cgroup/unified/cgroup.controllers"

// Obstacle says in a sentence what about this machine keeps the OCI runtime at path from making containers, and what to do;
// "" where nothing is known.
func Obstacle(path string) string {
	b, _ := os.ReadFile(unifiedControllers)
	return obstacle(path, string(b))
}

// obstacle is Obstacle where v2 is beside v1 with these controllers. crun looks whether there are any and gives up; runc
// uses v1.
func obstacle(path, controllers string) string {
	list := strings.Fields(controllers)
	if filepath.Base(path) != "crun" || len(list) == 0 {
		return ""
	}
	return "crun refuses cgroup v1 where cgroup v2 is mounted beside it with controllers (" + strings.Join(list, ", ") +
		"): use --runtime runc or Hull's own, or boot with only one of the two (systemd.unified_cgroup_hierarchy=1)"
}

// obstacles are those of the runtimes that a container may ask for by name, a line each. asked says that they keep what the
// configuration asks for from working.
func (e *Engine) obstacles() (lines []string, asked bool) {
	paths := e.Runtimes()
	conf, err := e.Config()
	if err != nil {
		conf = &config.Config{} // said elsewhere
	}
	for _, r := range conf.Runtimes {
		paths[r.Name] = r.Path
	}
	for name, path := range paths {
		why := Obstacle(path)
		if why == "" {
			continue
		}
		asked = asked || name == conf.DefaultRuntime
		if name != filepath.Base(path) {
			why = name + ": " + why
		}
		lines = append(lines, why)
	}
	slices.Sort(lines)
	return lines, asked
}

func judgeRuntimes(f *facts) Check {
	if len(f.obstacles) == 0 {
		return Check{}
	}
	if f.uid != 0 {
		return Check{Name: "other runtimes", Level: LevelInfo, Found: "only root can run containers with --runtime"}
	}
	c := Check{Name: "other runtimes", Level: LevelInfo, Found: strings.Join(f.obstacles, "; "),
		Means: "Containers with --runtime of that name are refused; all others are as ever."}
	if f.obstructed {
		c.Level = LevelWarn
		c.Means = "It is the default-runtime of the settings: containers are refused unless --runtime names another."
		c.Do = "Set default-runtime to hull or runc."
	}
	return c
}
