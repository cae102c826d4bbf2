package cli

import (
	"hull/errdef"
)

// Topic is a page of help that belongs to no command.
type Topic struct{ Name, Short, Text string }

var topics = [...]Topic{
	{"environment", "Variables that are read", `HULL_ROOT                where images and containers are kept, as --root
HULL_RUN                 where what a reboot may take away is kept, as --run
HULL_CONFIG              the file of settings, as --config; see 'hull help settings'
HULL_HOST, DOCKER_HOST   the engine to ask instead of the one in hull, as --host
HULL_CONTEXT, DOCKER_CONTEXT
                         the same by the name of a context of Docker's, as --context
HULL_SSH_COMMAND         what stands for 'hull' on the other side of push and pull ssh://HOST/NAME
HULL_TRACE=1             print when each step of a command was finished
DOCKER_CONFIG            directory of Docker's client configuration, ~/.docker
DOCKER_AUTH_CONFIG       credentials for registries, as config.json there has them
DOCKER_API_VERSION       version of the API to speak with another engine
DOCKER_DEFAULT_PLATFORM  platform of images, as --platform
NO_COLOR                 no colours, whatever its value
SOURCE_DATE_EPOCH        when what build makes is made, in seconds since 1970
SSH_AUTH_SOCK            the agent that build --ssh default lends
XDG_DATA_HOME, XDG_RUNTIME_DIR, XDG_CONFIG_HOME
                         where an ordinary user's store, sockets and settings are

What is given on the command line wins.
`},
	{"exit-status", "What the exit status says", `0           all went well
1           the engine refused, or something failed
125         run, create, exec or start -a: hull or the engine failed, not the command
126         the command was found but cannot be executed
127         the command was not found
128+N       the command, or hull itself, was ended by signal N: 130 by ctrl-c, 137 by SIGKILL, 143 by SIGTERM
otherwise   with run, exec and start -a: the command's own

doctor, config check and commands on several names exit with 1 when any of it failed.
`},
	{"files", "Where things are kept", `                 root                   anybody else
state            /var/lib/hull          ~/.local/share/hull
sockets, locks   /run/hull              $XDG_RUNTIME_DIR/hull
settings         /etc/hull/hull.toml    ~/.config/hull/hull.toml

Below the state: containers/ID has a container's definition, state, log and files; images, refs and refs.log say which
images there are and were; blobs and layers have what is in them; volumes, what lasts longer than a container; undo, what
was removed and can be restored.
All of it can be read with cat. To move it, stop all containers and move the directory.
`},
	{"filters", "What --filter takes", `ps        id= name= label=KEY[=VALUE] status= exited=CODE health= ancestor=IMAGE before= since=
          volume= network= publish=PORT[/PROTOCOL] expose=PORT[/PROTOCOL]
images    reference=PATTERN label=KEY[=VALUE] dangling=true|false before= since=
volumes   name= label=KEY[=VALUE] dangling=true|false
events    type= event= container= image= volume= label=KEY[=VALUE]

Different filters all have to hold; of the same one given several times, one has to, but all labels.

  hull ps -a --filter status=exited --filter status=created --filter label=job
`},
	{"format", "What --format takes", `json              a JSON document for each line
table             the table, also where a template is configured
table TEMPLATE    a table of the template's columns: 'table {{.Names}}\t{{.Status}}'
TEMPLATE          a Go template for each line: '{{.Names}} {{.Label "job"}}'

The fields are those of the table and more: '{{json .}}' shows them all. Functions: json, join, split, lower, upper, title,
pad (value, before, after), truncate (value, length), println.
`},
	{"settings", "The file of settings", `Hull needs none. What is to hold for all containers stands in /etc/hull/hull.toml, or ~/.config/hull/hull.toml:

  [log]
  driver = "local"
  [ulimits]
  nofile = "1024:4096"

'hull config show' has every setting, its value and where that comes from; 'hull config check' says what is wrong, with
file and line. An option on the command line wins. A daemon.json of Docker can be given as it is: --config daemon.json.
`},
}

// topicHelp prints a topic; ok is false when there is none of that name.
func (a *app) topicHelp(name string) (ok bool) {
	for _, t := range topics {
		if t.Name == name {
			a.out.printf("%s\n\n%s", t.Short, t.Text)
			return true
		}
	}
	return false
}

// helpFor is `hull help WORDS...`: of a command, or a topic.
func (a *app) helpFor(words []string) error {
	if _, ok := find(commands[:], words[0]); !ok && len(words) == 1 && a.topicHelp(words[0]) {
		return nil
	}
	if _, ok := find(commands[:], words[0]); !ok {
		if reason, ok := later(words[0]); ok {
			return status(exitEngine, errdef.NotImplemented("%s %s", words[0], reason))
		}
		return hint(errdef.Invalid("no help on %q", words[0]), "\nRun '"+a.Name+" help' for the commands and topics")
	}
	return a.dispatch(append(words, "--help"))
}
