// Package runtime turns an OCI bundle into a process.
package runtime
