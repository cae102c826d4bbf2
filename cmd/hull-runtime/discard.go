package main

import (
	"os"

	"hull/state"
)

// discard removes a directory tree, silently. An ordinary user's hull runs it as root of the containers' user
// namespace, for files that belong to the ids of /etc/subuid: outside of it they are somebody else's.
func discard(args []string) int {
	if len(args) != 1 || state.Remove(args[0]) != nil {
		return 1
	}
	if _, err := os.Lstat(args[0]); err == nil {
		return 1
	}
	return 0
}
