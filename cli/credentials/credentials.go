// Package credentials keeps what a person has for registries, where Docker's client keeps it: in config.json of a
// directory, or with the programs that file names (credsStore, credHelpers).
//
//	s := credentials.Open("/home/me/.docker")
//	l, err := s.Login(ctx, "docker.io")
//	kept, err := s.Keep(ctx, "quay.io", credentials.Login{Username: "me", Password: secret})
//
// Servers are called as in references, docker.io or host[:port]. Everything in the file that is not about credentials
// stays as it is; the file is replaced in one step, under a lock of its directory, and only its owner may read it.
//
// Beware: an engine never reads this. Credentials are sent along with the requests that need them.
package credentials

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hull/errdef"
	"hull/state"
)

// Login is what is kept for one registry. The zero value is nothing.
type Login struct {
	Username, Password string
	IdentityToken      string // instead of the password
	RegistryToken      string // sent to the registry as it is
}

// Store is safe for concurrent use, also by several processes.
type Store struct {
	dir string
	// Given are credentials that come with the process: the value of DOCKER_AUTH_CONFIG, which has the form of the file.
	Given string

	helperTime time.Duration // what a program gets
}

// Open returns the store in a directory, which need not exist.
func Open(dir string) *Store {
	return &Store{dir: dir, Given: os.Getenv("DOCKER_AUTH_CONFIG"), helperTime: helperTime}
}

// hub is the registry that Docker keeps under an address of its own.
const (
	hub        = "docker.io"
	hubAddress = "https://index.docker.io/v1/"
)

// maxFile bounds the file.
const maxFile = 4 << 20

// lockWait is how long another process may take to write the file.
const lockWait = 20 * time.Second

// config is the part of the file that is about credentials.
type config struct {
	Auths   map[string]entry  `json:"auths"`
	Store   string            `json:"credsStore"`
	Helpers map[string]string `json:"credHelpers"`
}

type entry struct {
	Auth          string `json:"auth,omitempty"` // user:password in base64
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Server is what people call a registry as references do: without a scheme and path, docker.io for any name of it.
func Server(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s, _, _ = strings.Cut(s, "/")
	switch s {
	case "", "index.docker.io", "registry-1.docker.io":
		return hub
	}
	return s
}

// address is what the registry is called in the file and by helpers.
func address(server string) string {
	if server == hub {
		return hubAddress
	}
	return server
}

// Path is the file.
func (s *Store) Path() string { return filepath.Join(s.dir, "config.json") }

// read returns the whole file by key, and the part that is about credentials. No file is an empty one.
func (s *Store) read() (map[string]json.RawMessage, *config, error) {
	all, c := map[string]json.RawMessage{}, new(config)
	if s.dir == "" {
		return all, c, nil
	}
	data, err := state.Read(s.target(), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return all, c, nil
	}
	if err == nil {
		if err = json.Unmarshal(data, &all); err == nil {
			err = json.Unmarshal(data, c)
		}
		if err != nil { // of JSON: its text could hold a part of a secret
			err = errdef.Invalid("%s is not valid JSON: correct it, or move it away", s.Path())
		}
	}
	return all, c, err
}

// helper is the program that keeps what belongs to the server, "" for the file itself.
func (c *config) helper(server string) string {
	for _, key := range []string{address(server), server} {
		if h := c.Helpers[key]; h != "" {
			return h
		}
	}
	return c.Store
}

// Login returns what is kept for a registry, the zero value if that is nothing.
func (s *Store) Login(ctx context.Context, server string) (Login, error) {
	if s.Given != "" {
		var c config
		if json.Unmarshal([]byte(s.Given), &c) != nil {
			return Login{}, errdef.Invalid("DOCKER_AUTH_CONFIG is not valid JSON")
		}
		if l, ok, err := c.login(server); ok || err != nil {
			return l, err
		}
	}
	_, c, err := s.read()
	if err != nil {
		return Login{}, err
	}
	if h := c.helper(server); h != "" {
		l, ok, err := s.program(h).get(ctx, address(server))
		if ok || err != nil {
			return l, err
		}
	}
	l, _, err := c.login(server)
	return l, err
}

// login finds the server in the file, under its address or any URL that has it.
func (c *config) login(server string) (Login, bool, error) {
	e, ok := c.Auths[address(server)]
	if !ok {
		for _, key := range sorted(c.Auths) {
			if Server(key) == server {
				e, ok = c.Auths[key], true
				break
			}
		}
	}
	if !ok {
		return Login{}, false, nil
	}
	l := Login{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		data, err := base64.StdEncoding.DecodeString(e.Auth)
		user, password, two := strings.Cut(string(data), ":")
		if err != nil || !two {
			return Login{}, false, errdef.Invalid("what is kept for %s cannot be read: log in again", server)
		}
		l.Username, l.Password = user, strings.TrimRight(password, "\x00")
	}
	return l, l != (Login{}), nil
}

func sorted(m map[string]entry) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Has reports whether something is kept for a registry, without asking a program for it.
func (s *Store) Has(server string) bool {
	if l, ok, err := s.given().login(server); ok && err == nil && l != (Login{}) {
		return true
	}
	_, c, err := s.read()
	if err != nil {
		return false
	}
	if _, ok, err := c.login(server); ok && err == nil {
		return true
	}
	// With a program the file has an empty entry for each server it was given something for.
	for key := range c.Auths {
		if Server(key) == server {
			return true
		}
	}
	return c.Helpers[address(server)] != "" || c.Helpers[server] != ""
}

// HasOthers reports whether there may be something for another registry than this one.
func (s *Store) HasOthers(server string) bool {
	_, c, err := s.read()
	if err != nil {
		return false
	}
	for _, keys := range []map[string]entry{s.given().Auths, c.Auths} {
		for key := range keys {
			if Server(key) != server {
				return true
			}
		}
	}
	for key := range c.Helpers {
		if Server(key) != server {
			return true
		}
	}
	return false
}

func (s *Store) given() *config {
	c := new(config)
	if json.Unmarshal([]byte(s.Given), c) != nil {
		return new(config)
	}
	return c
}

// Keep keeps a login. inFile says that it is in the file now, where nothing encrypts it.
func (s *Store) Keep(ctx context.Context, server string, l Login) (inFile bool, err error) {
	if s.dir == "" {
		return false, errdef.Unavailable("there is no place to keep credentials: this user has no home; set DOCKER_CONFIG")
	}
	err = s.change(ctx, func(c *config) error {
		key, e := address(server), entry{}
		if h := c.helper(server); h != "" {
			if err := s.program(h).store(ctx, key, l); err != nil {
				return err
			}
		} else {
			inFile = true
			e = entry{IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken}
			if l.Username != "" || l.Password != "" {
				e.Auth = base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
			}
		}
		c.forget(server)
		c.Auths[key] = e
		return nil
	})
	return inFile, err
}

// Erase forgets a login; had says whether there was one.
func (s *Store) Erase(ctx context.Context, server string) (had bool, err error) {
	if s.dir == "" {
		return false, nil
	}
	err = s.change(ctx, func(c *config) error {
		if h := c.helper(server); h != "" {
			gone, err := s.program(h).erase(ctx, address(server))
			if err != nil {
				return err
			}
			had = gone
		}
		had = c.forget(server) || had
		return nil
	})
	return had, err
}

func (c *config) forget(server string) (had bool) {
	if c.Auths == nil {
		c.Auths = map[string]entry{}
	}
	for _, key := range sorted(c.Auths) {
		if Server(key) == server {
			delete(c.Auths, key)
			had = true
		}
	}
	return had
}

// change replaces the auths of the file by what f makes of them. Readers see the old file or the new one.
func (s *Store) change(ctx context.Context, f func(*config) error) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait+2*s.helperTime)
	defer cancel()
	lock, err := state.Lock(ctx, s.dir)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	all, c, err := s.read()
	if err != nil {
		return err
	}
	if err := f(c); err != nil {
		return err
	}
	// Entries keep what is in them that is not known here.
	kept := map[string]json.RawMessage{}
	old := map[string]json.RawMessage{}
	if raw := all["auths"]; raw != nil {
		if err := json.Unmarshal(raw, &old); err != nil {
			return errdef.Invalid("%s: auths is no object", s.Path())
		}
	}
	before := new(config)
	if raw := all["auths"]; raw != nil {
		if err := json.Unmarshal(raw, &before.Auths); err != nil {
			return errdef.Invalid("%s: auths is no object of objects", s.Path())
		}
	}
	for key, e := range c.Auths {
		if was, ok := before.Auths[key]; ok && was == e {
			kept[key] = old[key]
			continue
		}
		if kept[key], err = json.Marshal(e); err != nil {
			return err
		}
	}
	if all["auths"], err = json.Marshal(kept); err != nil {
		return err
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return s.write(append(data, '\n'))
}

// target is the file, or what it is a link to.
func (s *Store) target() string {
	if at, err := filepath.EvalSymlinks(s.Path()); err == nil {
		return at
	}
	return s.Path()
}

func (s *Store) write(data []byte) error {
	if err := state.WriteDurable(s.target(), data); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	return nil
}
