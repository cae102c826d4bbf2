package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"hull/errdef"
	"hull/payload"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// initPath is where containers have the init; Docker's place for it.
const initPath = "/sbin/docker-init"

// init is the path in the container of the init it asked for, "" for none, which is mounted read-only: whatever the
// container may do, it does not write to what others run. As with Docker, who sees processes that are not its own gets
// none.
func (e *Engine) init(c *Container, spec *specs.Spec) (string, error) {
	if !c.Host.Init || c.Host.PidMode != "" && c.Host.PidMode != modePrivate {
		return "", nil
	}
	program := payload.Init()
	if len(program) == 0 {
		return "", errdef.NotImplemented("--init is not there for this architecture")
	}
	sum := sha256.Sum256(program)
	path := filepath.Join(e.root, "bin", hex.EncodeToString(sum[:]), "init")
	if _, err := os.Stat(path); err != nil {
		if err := extract(path, program); err != nil {
			return "", e.storeError(err)
		}
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: initPath, Type: "bind", Source: path, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev"},
	})
	return initPath, nil
}
