package api

import (
	"strings"

	"hull/errdef"
)

// access is what a call may do, for policies that look at the route and not at the path.
type access uint8

const (
	read  access = iota // tells what is known here
	reach               // changes nothing here, but has the engine connect to a place of the client's choice
	write               // changes state, or reaches into a container
)

// route is one call. In a pattern {name} stands for one segment and {name...} for one or more.
type route struct {
	method  string
	pattern string
	handle  func(*server, *request) error
	access  access
}

// table is the Engine API as far as Hull has it, grouped by noun.
var table = [...]route{
	{"GET", "/_ping", (*server).ping, read},
	{"HEAD", "/_ping", (*server).ping, read},
	{"GET", "/version", (*server).version, read},
	{"GET", "/hull/v1/doctor", (*server).doctor, read},
	{"GET", "/hull/v1/config", (*server).showConfig, read},
	{"POST", "/hull/v1/config/check", (*server).checkConfig, read},
	{"GET", "/info", (*server).info, read},
	{"GET", "/events", (*server).events, read},

	{"GET", "/containers/json", (*server).listContainers, read},
	{"POST", "/hull/v1/build", (*server).hullBuild, write},
	{"POST", "/build/prune", (*server).pruneBuildCache, write},
	{"POST", "/containers/prune", (*server).pruneContainers, write},
	{"POST", "/containers/create", (*server).createContainer, write},
	{"GET", "/containers/{name}/json", (*server).inspectContainer, read},
	{"GET", "/containers/{name}/logs", (*server).containerLogs, read},
	{"GET", "/containers/{name}/stats", (*server).containerStats, read},
	{"GET", "/containers/{name}/top", (*server).topContainer, read},
	{"GET", "/hull/v1/prunable", (*server).prunable, read},
	{"POST", "/hull/v1/check", (*server).checkStore, write},
	{"POST", "/hull/v1/gc", (*server).collectGarbage, write},
	{"GET", "/hull/v1/disk", (*server).disk, read},
	{"GET", "/system/df", (*server).systemDF, read},

	{"POST", "/commit", (*server).commitContainer, write},
	{"GET", "/containers/{name}/changes", (*server).containerChanges, read},
	{"GET", "/containers/{name}/export", (*server).exportContainer, read},
	{"HEAD", "/containers/{name}/archive", (*server).statPath, read},
	{"GET", "/containers/{name}/archive", (*server).getArchive, read},
	{"PUT", "/containers/{name}/archive", (*server).putArchive, write},
	{"POST", "/containers/{name}/start", (*server).startContainer, write},
	{"POST", "/containers/{name}/stop", (*server).stopContainer, write},
	{"POST", "/containers/{name}/restart", (*server).restartContainer, write},
	{"POST", "/containers/{name}/kill", (*server).killContainer, write},
	{"POST", "/containers/{name}/pause", (*server).pauseContainer, write},
	{"POST", "/containers/{name}/unpause", (*server).unpauseContainer, write},
	{"POST", "/containers/{name}/update", (*server).updateContainer, write},
	{"POST", "/containers/{name}/rename", (*server).renameContainer, write},
	{"POST", "/containers/{name}/resize", (*server).resizeContainer, write},
	{"POST", "/containers/{name}/attach", (*server).attachContainer, write},
	{"POST", "/containers/{name}/wait", (*server).waitContainer, read},
	{"POST", "/containers/{name}/exec", (*server).createExec, write},
	{"DELETE", "/containers/{name}", (*server).removeContainer, write},

	{"POST", "/exec/{name}/start", (*server).startExec, write},
	{"POST", "/exec/{name}/resize", (*server).resizeExec, write},
	{"GET", "/exec/{name}/json", (*server).inspectExec, read},

	{"GET", "/images/json", (*server).listImages, read},
	{"GET", "/images/search", (*server).search, reach},
	{"POST", "/images/prune", (*server).pruneImages, write},
	{"POST", "/images/load", (*server).loadImages, write},
	{"GET", "/images/get", (*server).saveImages, reach},
	{"GET", "/images/{name...}/get", (*server).saveImages, reach},
	{"POST", "/images/create", (*server).createImage, write},
	{"GET", "/images/{name...}/json", (*server).inspectImage, read},
	{"GET", "/images/{name...}/history", (*server).imageHistory, read},
	{"POST", "/images/{name...}/push", (*server).pushImage, write},
	{"POST", "/images/{name...}/tag", (*server).tagImage, write},
	{"DELETE", "/images/{name...}", (*server).removeImage, write},
	{"GET", "/hull/v1/images/log", (*server).imageLog, read},
	{"GET", "/hull/v1/images/{name...}/log", (*server).imageLog, read},
	{"POST", "/hull/v1/images/{name...}/untag", (*server).untagImage, write},
	{"POST", "/hull/v1/images/{name...}/rollback", (*server).rollbackImage, write},
	{"POST", "/hull/v1/images/{name...}/pin", (*server).pinImage, write},
	{"DELETE", "/hull/v1/images/{name...}/pin", (*server).unpinImage, write},
	{"GET", "/hull/v1/images/{name...}/diff", (*server).diffImages, read},
	{"GET", "/hull/v1/images/{name...}/changelog", (*server).imageChangelog, read},
	{"GET", "/hull/v1/pins", (*server).listPins, read},

	{"GET", "/volumes", (*server).listVolumes, read},
	{"POST", "/volumes/create", (*server).createVolume, write},
	{"POST", "/volumes/prune", (*server).pruneVolumes, write},
	{"GET", "/volumes/{name}", (*server).inspectVolume, read},
	{"DELETE", "/volumes/{name}", (*server).removeVolume, write},
	{"GET", "/hull/v1/containers/{name}/removable", (*server).removableContainer, read},
	{"GET", "/hull/v1/images/{name...}/removable", (*server).removableImage, read},
	{"GET", "/hull/v1/volumes/{name}/removable", (*server).removableVolume, read},
	{"GET", "/hull/v1/trash", (*server).listTrash, read},
	{"DELETE", "/hull/v1/trash", (*server).emptyTrash, write},
	{"POST", "/hull/v1/trash/restore", (*server).restoreTrash, write},

	{"GET", "/networks", (*server).listNetworks, read},
	{"POST", "/networks/create", (*server).createNetwork, write},
	{"POST", "/networks/prune", (*server).pruneNetworks, write},
	{"GET", "/networks/{name}", (*server).inspectNetwork, read},
	{"POST", "/networks/{name}/connect", (*server).changeNetwork, write},
	{"POST", "/networks/{name}/disconnect", (*server).changeNetwork, write},
	{"DELETE", "/networks/{name}", (*server).removeNetwork, write},

	{"POST", "/auth", (*server).login, reach},
	{"GET", "/distribution/{name...}/json", (*server).distribution, reach},
	{"POST", "/hull/v1/peer/pull", (*server).pullFromPeer, write},
	{"POST", "/hull/v1/peer/push", (*server).pushToPeer, write},
	{"GET", "/hull/v1/registry/route", (*server).registryRoute, read},
	{"GET", "/hull/v1/registry/origins", (*server).registryOrigins, read},
	{"GET", "/hull/v1/registry/test", (*server).registryTest, reach},
	{"GET", "/hull/v1/registry/manifest", (*server).registryManifest, reach},
	{"GET", "/plugins", (*server).noPlugins, read},
	{"GET", "/swarm", (*server).noManager, read},
	{"GET", "/swarm/unlockkey", (*server).noManager, read},
	{"POST", "/swarm/init", (*server).refuseSwarm, write},
	{"POST", "/swarm/join", (*server).refuseSwarm, write},
	{"POST", "/swarm/update", (*server).noManager, write},
	{"POST", "/swarm/unlock", (*server).noManager, write},
	{"POST", "/swarm/leave", (*server).noSwarm, write},
	{"GET", "/nodes", (*server).noManager, read},
	{"GET", "/services", (*server).noManager, read},
	{"GET", "/tasks", (*server).noManager, read},
	{"GET", "/secrets", (*server).noManager, read},
	{"GET", "/configs", (*server).noManager, read},
	{"POST", "/services/create", (*server).noManager, write},
	{"POST", "/secrets/create", (*server).noManager, write},
	{"POST", "/configs/create", (*server).noManager, write},

	{"POST", "/hull/v1/events/exit/{name}", (*server).exitEvent, write},
	{"POST", "/hull/v1/events/boot", (*server).bootEvent, write},
	{"POST", "/hull/v1/events/shutdown", (*server).shutdownEvent, write},
}

// match finds the route of a request. What no pattern names is Docker's "page not found".
func match(method, path string) (*route, string, error) {
	other := false
	for i := range table {
		rt := &table[i]
		name, ok := matchPath(rt.pattern, path)
		if !ok {
			continue
		}
		if rt.method == method {
			return rt, name, nil
		}
		other = true
	}
	if other {
		return nil, "", errdef.As(errdef.ErrNotFound, errMethod)
	}
	return nil, "", errdef.As(errdef.ErrNotFound, errNoPage)
}

// matchPath compares a path with a pattern that has at most one {name} or {name...}, and returns its value.
func matchPath(pattern, path string) (string, bool) {
	head, tail, ok := strings.Cut(pattern, "{")
	if !ok {
		return "", path == pattern
	}
	many := strings.HasPrefix(tail, "name...")
	_, tail, _ = strings.Cut(tail, "}")
	if len(path) <= len(head)+len(tail) || !strings.HasPrefix(path, head) || !strings.HasSuffix(path, tail) {
		return "", false
	}
	name := path[len(head) : len(path)-len(tail)]
	if !many && strings.Contains(name, "/") {
		return "", false
	}
	return name, true
}

var (
	errNoPage = pageError("page not found")
	errMethod = pageError("page not found: no such method for this path")
)

// pageError is an error that needs no code at program start.
type pageError string

func (e pageError) Error() string { return string(e) }
