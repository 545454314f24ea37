package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lockstep/worker/fleet"
)

type rolesOptions struct {
	model string
	json  bool
	out   string
	at    string
	with  string
	users []string
	hosts []string
	url   string
}

func rolesCommand() *cobra.Command {
	var o rolesOptions
	cmd := &cobra.Command{
		Use:   "roles",
		Short: "Show what each role may do, or make the users of a NATS server",
		Long: `Roles prints the subjects that each role may publish and subscribe to: predictor,
teacher, worker, observer, operator. Every user also has inboxes of its own.

With --out it makes users and their secrets in a directory: what the configs in
deploy/nats include, a certificate authority and the servers' certificate, and for
each user its key and a nats context. Users prove who they are with client
certificates, with nkeys, or with creds (JWT). Run it again to add users or to
renew certificates: keys that are there are kept. There are no passwords.`,
		Example: `  lockstep roles
  lockstep roles --out /etc/nats/auth --host nats-0,nats-1,nats-2
  lockstep roles --out auth --with creds --user alice=teacher --user blue=worker`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "penguins", "the model's name: it begins every subject")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.out, "out", "", "make users in this directory")
	f.StringVar(&o.at, "at", "", "where the servers will see that directory (default: where it is)")
	f.StringVar(&o.with, "with", "certs", "how users prove who they are: certs, nkeys or creds")
	f.StringArrayVar(
		&o.users, "user", nil, "a user as NAME=ROLE, again for each (default: one of each role, by its name)",
	)
	f.StringSliceVar(
		&o.hosts, "host", []string{"localhost", "127.0.0.1"},
		"the servers' names and addresses, for their certificate",
	)
	f.StringVar(&o.url, "url", "", "the servers' URL in the contexts (default: the hosts at port 4222)")
	return cmd
}

// modelName is what a model may be called.
var modelName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

func (o *rolesOptions) run(cmd *cobra.Command) error {
	if !modelName.MatchString(o.model) {
		return usage("--model %q: a name has 1 to 32 small letters, digits and hyphens", o.model)
	}
	roles := fleet.Roles(o.model)
	if o.out == "" {
		return o.print(cmd.OutOrStdout(), roles)
	}
	users, err := o.parseUsers(roles)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(o.out)
	if err != nil {
		return usage("%w", err)
	}
	if o.at == "" {
		o.at = dir
	}
	if o.url == "" {
		var urls []string
		for _, host := range o.hosts {
			urls = append(urls, "tls://"+host+":4222")
		}
		o.url = strings.Join(urls, ",")
	}
	ring := &keyring{dir: dir, at: o.at, url: o.url, hosts: o.hosts, roles: roles}
	make := map[string]func([]user) error{"certs": ring.certs, "nkeys": ring.nkeys, "creds": ring.creds}[o.with]
	if make == nil {
		return usage("--with %q: it is certs, nkeys or creds", o.with)
	}
	if err := make(users); err != nil {
		return fmt.Errorf("the users could not be made: %w", err)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s holds secrets: keep it out of git, and give each user only its own.\n", dir)
	for _, u := range users {
		fmt.Fprintf(
			out, "  %-12s %-10s inbox prefix %s, context %s\n", u.name, u.role.Name, fleet.InboxPrefix(u.name),
			u.name+".json",
		)
	}
	return nil
}

func (o *rolesOptions) print(out io.Writer, roles []fleet.Role) error {
	if o.json {
		return json.NewEncoder(out).Encode(roles)
	}
	for _, r := range roles {
		fmt.Fprintf(out, "%s: may %s\n", r.Name, r.May)
		for _, s := range r.Publish {
			fmt.Fprintln(out, "  publish   ", s)
		}
		for _, s := range append([]string{fleet.InboxPrefix("<its name>") + ".>"}, r.Subscribe...) {
			fmt.Fprintln(out, "  subscribe ", s)
		}
	}
	return nil
}

// user is one of a server's, with its rights.
type user struct {
	name string
	role fleet.Role
}

func (u user) subscribe() []string {
	return append([]string{fleet.InboxPrefix(u.name) + ".>"}, u.role.Subscribe...)
}

func (o *rolesOptions) parseUsers(roles []fleet.Role) (users []user, err error) {
	if len(o.users) == 0 {
		for _, r := range roles {
			users = append(users, user{r.Name, r})
		}
		return users, nil
	}
	for _, text := range o.users {
		name, role, ok := strings.Cut(text, "=")
		i := slices.IndexFunc(roles, func(r fleet.Role) bool { return r.Name == role })
		switch {
		case !ok || !replicaName.MatchString(name):
			return nil, usage("--user %q is not NAME=ROLE; a name has 1 to 64 letters, digits, hyphens and underscores", text)
		case name == "ca" || name == "server":
			return nil, usage("--user %s: the files of the servers have that name", name)
		case i < 0:
			return nil, usage("--user %q: there is no role %q; see lockstep roles", text, role)
		case slices.ContainsFunc(users, func(u user) bool { return u.name == name }):
			return nil, usage("--user %s is given twice", name)
		}
		users = append(users, user{name, roles[i]})
	}
	return users, nil
}
