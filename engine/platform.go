package engine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"hull/image"
)

// foreign is the warning, in Docker's words, that the image of c is for another machine than this one, or "". Such an image
// runs only where the kernel has an interpreter for its programs (binfmt_misc). cpu reads what the processor can do.
func foreign(c *image.Config, cpu func() []string) string {
	switch {
	case c.Architecture == "", c.Architecture == runtime.GOARCH && c.Variant == "":
		return ""
	case runtime.GOARCH == "amd64" && c.Architecture == "386", runtime.GOARCH == "arm64" && c.Architecture == "arm":
		return "" // processors of the one run programs of the other
	}
	host := machineVariant(cpu)
	if c.Architecture == runtime.GOARCH && variantNumber(c.Variant) <= variantNumber(host) {
		return ""
	}
	return fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
		platformText(c.Architecture, c.Variant), platformText(runtime.GOARCH, host))
}

func platformText(arch, variant string) string {
	return strings.TrimSuffix("linux/"+arch+"/"+variant, "/")
}

func variantNumber(v string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(v, "v"))
	if err != nil {
		return 1
	}
	return n
}

// machineVariant is the variant of this machine's architecture.
func machineVariant(cpu func() []string) string {
	switch runtime.GOARCH {
	case "arm64":
		return "v8"
	case "amd64":
		return amd64Level(cpu())
	}
	return ""
}

// amd64Level is the microarchitecture level of a processor with the given flags, as /proc/cpuinfo calls them. The levels are
// those of the psABI of x86-64, chapter 3.1.1.
func amd64Level(flags []string) string {
	level := 1
	for _, needs := range []string{
		"cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
		"avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
		"avx512f avx512bw avx512cd avx512dq avx512vl",
	} {
		for _, flag := range strings.Fields(needs) {
			if !slices.Contains(flags, flag) {
				return "v" + strconv.Itoa(level)
			}
		}
		level++
	}
	return "v" + strconv.Itoa(level)
}

// cpuFlags are those of the first processor.
func cpuFlags() []string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" {
			return strings.Fields(value)
		}
	}
	return nil
}
