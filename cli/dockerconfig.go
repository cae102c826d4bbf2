package cli

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/errdef"
)

// dockerConfig is what is read of the configuration of Docker's client. That a person has chosen things there once is
// enough; only its current context is left alone: whoever types hull means the engine in hull, unless told otherwise.
type dockerConfig struct {
	DetachKeys   string                 `json:"detachKeys"`
	PsFormat     string                 `json:"psFormat"`
	ImagesFormat string                 `json:"imagesFormat"`
	Proxies      map[string]dockerProxy `json:"proxies"` // by address of the engine, or "default"
}

type dockerProxy struct {
	HTTP  string `json:"httpProxy"`
	HTTPS string `json:"httpsProxy"`
	FTP   string `json:"ftpProxy"`
	No    string `json:"noProxy"`
	All   string `json:"allProxy"`
}

// docker is the configuration of Docker's client, read at the first call. What is wrong with it is said once, and then
// it counts as empty, as with Docker.
func (a *app) docker() *dockerConfig {
	if a.dockerRead != nil {
		return a.dockerRead
	}
	a.dockerRead = new(dockerConfig)
	dir := a.dockerConfigDir()
	if dir == "" {
		return a.dockerRead
	}
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return a.dockerRead
	}
	if err == nil {
		err = json.Unmarshal(b, a.dockerRead)
	}
	if err != nil {
		a.warn("Error loading config file: " + path + ": " + err.Error())
		a.dockerRead = new(dockerConfig)
	}
	return a.dockerRead
}

// dockerConfigDir is "" for a user without a home.
func (a *app) dockerConfigDir() string {
	if dir := cmp.Or(a.dockerDir, os.Getenv("DOCKER_CONFIG")); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// withProxies appends to the variables of a new container the proxies of Docker's configuration, in both cases, but those
// that a person mentioned.
func (a *app) withProxies(env []string) []string {
	all := a.docker().Proxies
	p, ok := all[a.host]
	if !ok {
		p = all["default"]
	}
	person := len(env)
	for _, v := range []struct{ name, value string }{
		{"ALL_PROXY", p.All}, {"FTP_PROXY", p.FTP}, {"HTTP_PROXY", p.HTTP}, {"HTTPS_PROXY", p.HTTPS}, {"NO_PROXY", p.No},
	} {
		for _, name := range []string{v.name, strings.ToLower(v.name)} {
			if v.value != "" && !slices.ContainsFunc(env[:person], func(kv string) bool {
				have, _, _ := strings.Cut(kv, "=")
				return have == name
			}) {
				env = append(env, name+"="+v.value)
			}
		}
	}
	return env
}

// contextName is the name in the meta.json of a context.
func contextName(meta []byte) string {
	var m struct{ Name string }
	if json.Unmarshal(meta, &m) != nil {
		return ""
	}
	return m.Name
}

// contextHost is the address of the engine that a context of Docker's names, "" for the default one.
func (a *app) contextHost(name string) (string, error) {
	if name == "" || name == "default" {
		return "", nil
	}
	sum := sha256.Sum256([]byte(name))
	path := filepath.Join(a.dockerConfigDir(), "contexts", "meta", hex.EncodeToString(sum[:]), "meta.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errdef.NotFound("context %q: context not found", name)
	}
	if err != nil {
		return "", plainPathError(err)
	}
	var meta struct {
		Endpoints struct {
			Docker struct{ Host string } `json:"docker"`
		}
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return "", errdef.Invalid("context %q: %s: %w", name, path, err)
	}
	if meta.Endpoints.Docker.Host == "" {
		return "", errdef.Invalid("context %q has no address of an engine in %s", name, path)
	}
	return meta.Endpoints.Docker.Host, nil
}
