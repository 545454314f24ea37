package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"lockstep/worker/fleet"
)

// keyring is a directory of secrets: those of the servers, and each user's.
type keyring struct {
	dir   string
	at    string // where the servers see it
	url   string
	hosts []string
	roles []fleet.Role

	authority    *x509.Certificate
	authorityKey *ecdsa.PrivateKey
}

// How long certificates are good for. lockstep doctor warns before they end.
const (
	authorityYears = 10
	leafYears      = 1
)

// certs makes users that prove who they are with client certificates.
func (k *keyring) certs(users []user) error {
	if err := k.servers("verify_and_map: true"); err != nil {
		return err
	}
	var blocks []string
	for _, u := range users {
		if err := k.leaf(u.name, x509.ExtKeyUsageClientAuth); err != nil {
			return err
		}
		if err := k.context(u.name, map[string]string{"cert": k.local(u.name + ".pem"), "key": k.local(u.name + "-key.pem")}); err != nil {
			return err
		}
		blocks = append(blocks, userBlock("user", "CN="+u.name, u))
	}
	return k.write("users.conf", authorization(blocks))
}

// nkeys makes users that sign the server's challenge.
func (k *keyring) nkeys(users []user) error {
	if err := k.servers(""); err != nil {
		return err
	}
	var blocks []string
	for _, u := range users {
		pair, err := k.pair(u.name+".nk", nkeys.PrefixByteUser)
		if err != nil {
			return err
		}
		public, err := pair.PublicKey()
		if err != nil {
			return err
		}
		if err := k.context(u.name, map[string]string{"nkey": k.local(u.name + ".nk")}); err != nil {
			return err
		}
		blocks = append(blocks, userBlock("nkey", public, u))
	}
	return k.write("users.conf", authorization(blocks))
}

// creds makes users whose rights the account says by role: each role has a
// key that signs its users. So the servers hold no secret, and know nothing of
// a user until it comes.
func (k *keyring) creds(users []user) error {
	if err := k.servers(""); err != nil {
		return err
	}
	operator, err := k.pair("issuer.operator.nk", nkeys.PrefixByteOperator)
	if err != nil {
		return err
	}
	account, err := k.pair("issuer.account.nk", nkeys.PrefixByteAccount)
	if err != nil {
		return err
	}
	system, err := k.pair("issuer.system.nk", nkeys.PrefixByteAccount)
	if err != nil {
		return err
	}
	serving := jwt.NewAccountClaims(public(account))
	serving.Name = "lockstep"
	serving.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
	}
	signers := map[string]nkeys.KeyPair{}
	for _, r := range k.roles {
		signer, err := k.pair("issuer.role."+r.Name+".nk", nkeys.PrefixByteAccount)
		if err != nil {
			return err
		}
		signers[r.Name] = signer
		scope := jwt.NewUserScope()
		scope.Key, scope.Role, scope.Description = public(signer), r.Name, "may "+r.May
		scope.Template.Pub.Allow.Add(r.Publish...)
		scope.Template.Sub.Allow.Add(user{"{{name()}}", r}.subscribe()...)
		serving.SigningKeys.AddScopedSigner(scope)
	}
	for _, u := range users {
		if err := k.credsOf(u, public(account), signers[u.role.Name]); err != nil {
			return err
		}
	}
	self := jwt.NewOperatorClaims(public(operator))
	self.Name, self.SystemAccount = "lockstep", public(system)
	watching := jwt.NewAccountClaims(public(system))
	watching.Name = "SYS"
	words := map[jwt.Claims]string{self: "", serving: "", watching: ""}
	for claims := range words { // order: each is signed alone
		if words[claims], err = claims.Encode(operator); err != nil {
			return err
		}
	}
	return k.write(
		"users.conf",
		fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n  %s: %s\n  %s: %s\n}\n",
			words[self], public(system), public(account), words[serving], public(system), words[watching]),
	)
}

// credsOf signs a user.
func (k *keyring) credsOf(u user, account string, signer nkeys.KeyPair) error {
	pair, err := k.pair(u.name+".nk", nkeys.PrefixByteUser)
	if err != nil {
		return err
	}
	claims := jwt.NewUserClaims(public(pair))
	claims.Name, claims.IssuerAccount = u.name, account
	claims.SetScoped(true)
	word, err := claims.Encode(signer)
	if err != nil {
		return err
	}
	seed, err := pair.Seed()
	if err != nil {
		return err
	}
	file, err := jwt.FormatUserConfig(word, seed)
	if err != nil {
		return err
	}
	return errors.Join(
		k.write(u.name+".creds", string(file)),
		k.context(u.name, map[string]string{"creds": k.local(u.name + ".creds")}),
	)
}

func public(pair nkeys.KeyPair) string {
	id, err := pair.PublicKey()
	if err != nil {
		panic(err) // only of a pair that was wiped
	}
	return id
}

func authorization(blocks []string) string {
	return "authorization: {\n  timeout: 2\n  users: [\n" + strings.Join(blocks, "") + "  ]\n}\n"
}

// userBlock is a user of a server's config.
func userBlock(key, id string, u user) string {
	list := func(subjects []string) string {
		text := ""
		for _, s := range subjects {
			text += fmt.Sprintf("        %q\n", s)
		}
		return "[\n" + text + "      ]"
	}
	return fmt.Sprintf(
		"    # %s, a %s: may %s\n    { %s: %q, permissions: {\n      publish: %s\n      subscribe: %s\n    } }\n",
		u.name, u.role.Name, u.role.May, key, id, list(u.role.Publish), list(u.subscribe()),
	)
}

// servers makes the authority, the servers' certificate, and the blocks that
// name them: tls.conf of the clients' port, routes.conf of the cluster's.
func (k *keyring) servers(clients string) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if err := k.openAuthority(); err != nil {
		return err
	}
	if err := k.leaf("server", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	block := func(more string) string {
		return fmt.Sprintf(
			"tls {\n  cert_file: %q\n  key_file: %q\n  ca_file: %q\n  timeout: 5\n  %s\n}\n",
			path.Join(k.at, "server.pem"), path.Join(k.at, "server-key.pem"), path.Join(k.at, "ca.pem"), more,
		)
	}
	return errors.Join(k.write("tls.conf", block(clients)), k.write("routes.conf", block("verify: true")))
}

// openAuthority reads the certificate authority, or makes one.
func (k *keyring) openAuthority() error {
	key, err := k.key("ca-key.pem")
	if err != nil {
		return err
	}
	k.authorityKey = key
	if data, err := os.ReadFile(k.local("ca.pem")); err == nil {
		block, _ := pem.Decode(data)
		if block == nil {
			return fmt.Errorf("%s holds no certificate", k.local("ca.pem"))
		}
		k.authority, err = x509.ParseCertificate(block.Bytes)
		return err
	}
	k.authority = template("lockstep", authorityYears)
	k.authority.IsCA, k.authority.BasicConstraintsValid, k.authority.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	return k.sign("ca.pem", k.authority, key)
}

// leaf makes a certificate, again each time: so it is renewed.
func (k *keyring) leaf(name string, use ...x509.ExtKeyUsage) error {
	key, err := k.key(name + "-key.pem")
	if err != nil {
		return err
	}
	t := template(name, leafYears)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, use
	if name == "server" {
		for _, host := range k.hosts {
			if ip := net.ParseIP(host); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else {
				t.DNSNames = append(t.DNSNames, host)
			}
		}
	}
	return k.sign(name+".pem", t, key)
}

func template(name string, years int) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the system has no random numbers
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(years, 0, 0),
	}
}

func (k *keyring) sign(file string, t *x509.Certificate, key *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, t, k.authority, &key.PublicKey, k.authorityKey)
	if err != nil {
		return err
	}
	return k.write(file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// key reads a private key, or makes one.
func (k *keyring) key(file string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(k.local(file))
	if err == nil {
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("%s holds no key", k.local(file))
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.local(file), err)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("%s holds a key that was not made here", k.local(file))
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, k.write(file, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// pair reads an nkey's seed, or makes one.
func (k *keyring) pair(file string, kind nkeys.PrefixByte) (nkeys.KeyPair, error) {
	data, err := os.ReadFile(k.local(file))
	if err == nil {
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(data))))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.local(file), err)
		}
		return pair, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	pair, err := nkeys.CreatePair(kind)
	if err != nil {
		return nil, err
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, err
	}
	return pair, k.write(file, string(seed)+"\n")
}

// context writes a user's nats context, which knows its inbox prefix.
func (k *keyring) context(name string, more map[string]string) error {
	more["url"], more["ca"], more["inbox_prefix"] = k.url, k.local("ca.pem"), fleet.InboxPrefix(name)
	data, err := json.MarshalIndent(more, "", "  ")
	if err != nil {
		return err
	}
	return k.write(name+".json", string(data)+"\n")
}

func (k *keyring) local(file string) string { return filepath.Join(k.dir, file) }

func (k *keyring) write(file, text string) error {
	return os.WriteFile(k.local(file), []byte(text), 0o600)
}
