// Release builds the program for every platform and packs each with its
// manual pages and completions:
//
//	go run .ci/release.go [-out dist] [-only linux/amd64] VERSION
//	go run .ci/release.go -binary FILE [-only linux/arm64] VERSION
//
// The archives follow from the sources, the version and the Go release, and
// from nothing else: who builds them again gets the same bytes. SHA256SUMS
// lists what was made.
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

var platforms = []string{
	"linux/amd64", "linux/arm64",
	"darwin/amd64", "darwin/arm64",
	"windows/amd64", "windows/arm64",
}

var semantic = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func main() {
	log.SetFlags(0)
	out := flag.String("out", "dist", "the folder for the archives; what is in it is removed")
	only := flag.String("only", "", "build for these platforms only, comma-separated")
	bare := flag.String("binary", "", "build the program alone, into this file")
	flag.Parse()
	version := strings.TrimPrefix(flag.Arg(0), "v")
	if flag.NArg() != 1 || !semantic.MatchString(version) {
		log.Fatal(
			"usage: go run .ci/release.go [-out DIR | -binary FILE] [-only OS/ARCH,…] VERSION, as in 1.2.3 or 1.2.3-rc.1",
		)
	}
	wanted := platforms
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, platform := range wanted {
		if !slices.Contains(platforms, platform) {
			log.Fatalf("%q is none of %s", platform, strings.Join(platforms, ", "))
		}
	}
	r := &release{version: version, revision: revision(), out: *out}
	if *bare != "" {
		if *only == "" {
			wanted = []string{runtime.GOOS + "/" + runtime.GOARCH}
		}
		r.build(wanted[0], *bare)
		return
	}
	r.at = moment()
	check(os.RemoveAll(r.out))
	check(os.MkdirAll(r.out, 0o755))
	work, err := os.MkdirTemp("", "lockstep-release-")
	check(err)
	defer os.RemoveAll(work)
	extras := r.extras(work)
	for _, platform := range wanted {
		began := time.Now()
		name := r.pack(platform, work, extras)
		fmt.Printf("%s  %s (%.0f s)\n", sum(filepath.Join(r.out, name)), name, time.Since(began).Seconds())
	}
	r.sums()
}

type release struct {
	version, revision string
	at                time.Time // of the commit: all files in the archives bear it
	out               string
}

// file is one in an archive.
type file struct {
	name string // its path in the archive, below the archive's own folder
	from string
	mode int64
}

// build builds the program for a platform. What would differ between two
// machines, folders or clones is left out: paths, C, the state of git.
func (r *release) build(platform, to string) {
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", fmt.Sprintf("-s -w -buildid= -X main.version=%s -X main.revision=%s", r.version, r.revision),
		"-o", to, "./cmd/lockstep")
	cmd.Env = append(
		os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOOS="+goos,
		"GOARCH="+goarch,
	)
	run(cmd)
}

// extras makes what is the same for all platforms, with a program for this
// one.
func (r *release) extras(work string) (files []file) {
	program := filepath.Join(work, "lockstep-here")
	r.build(runtime.GOOS+"/"+runtime.GOARCH, program)
	man := exec.Command(program, "man", filepath.Join(work, "man"))
	man.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.at.Unix(), 10))
	run(man)
	pages, err := filepath.Glob(filepath.Join(work, "man", "*.1"))
	check(err)
	for _, page := range pages {
		files = append(files, file{"man/" + filepath.Base(page), page, 0o644})
	}
	for shell, name := range map[string]string{"bash": "lockstep.bash", "zsh": "_lockstep", "fish": "lockstep.fish", "powershell": "lockstep.ps1"} { // order: the files are sorted
		script, err := exec.Command(program, "completion", shell).Output()
		check(err)
		path := filepath.Join(work, name)
		check(os.WriteFile(path, script, 0o644))
		files = append(files, file{"completions/" + name, path, 0o644})
	}
	return append(
		files, file{"README.md", "README.md", 0o644}, file{"LICENSE", "LICENSE", 0o644},
		file{"CHANGELOG.md", "CHANGELOG.md", 0o644},
	)
}

// pack builds for a platform and returns the archive's name.
func (r *release) pack(platform, work string, extras []file) string {
	program := file{"lockstep", filepath.Join(work, "program"), 0o755}
	write, suffix := writeTar, ".tar.gz"
	if strings.HasPrefix(platform, "windows/") {
		program.name, write, suffix = "lockstep.exe", writeZip, ".zip"
	}
	r.build(platform, program.from)
	files := append([]file{program}, extras...)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	folder := "lockstep_" + r.version + "_" + strings.ReplaceAll(platform, "/", "_")
	for i := range files {
		files[i].name = folder + "/" + files[i].name
	}
	to, err := os.Create(filepath.Join(r.out, folder+suffix))
	check(err)
	write(to, files, r.at)
	check(to.Close())
	return folder + suffix
}

func writeTar(to io.Writer, files []file, at time.Time) {
	packed := gzip.NewWriter(to)
	archive := tar.NewWriter(packed)
	for _, f := range files {
		data, err := os.ReadFile(f.from)
		check(err)
		check(
			archive.WriteHeader(
				&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(data)), ModTime: at, Format: tar.FormatUSTAR},
			),
		)
		_, err = archive.Write(data)
		check(err)
	}
	check(archive.Close())
	check(packed.Close())
}

func writeZip(to io.Writer, files []file, at time.Time) {
	archive := zip.NewWriter(to)
	for _, f := range files {
		data, err := os.ReadFile(f.from)
		check(err)
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: at}
		h.SetMode(os.FileMode(f.mode))
		w, err := archive.CreateHeader(h)
		check(err)
		_, err = w.Write(data)
		check(err)
	}
	check(archive.Close())
}

// sums lists the archives as sha256sum -c reads it.
func (r *release) sums() {
	entries, err := os.ReadDir(r.out)
	check(err)
	var text strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&text, "%s  %s\n", sum(filepath.Join(r.out, e.Name())), e.Name())
	}
	check(os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(text.String()), 0o644))
}

func sum(name string) string {
	data, err := os.ReadFile(name)
	check(err)
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// revision is the commit, or LOCKSTEP_REVISION where there is no git.
func revision() string {
	if given := os.Getenv("LOCKSTEP_REVISION"); given != "" {
		return given
	}
	out, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		log.Fatal("this is no git clone: say by LOCKSTEP_REVISION and SOURCE_DATE_EPOCH what commit it is, and of when")
	}
	if changed, err := exec.Command("git", "status", "--porcelain").Output(); err != nil || len(changed) > 0 {
		fmt.Fprintln(os.Stderr, "warning: there are changes that no commit has; nobody will be able to build the same")
	}
	return strings.TrimSpace(string(out))
}

// moment is the commit's time, or SOURCE_DATE_EPOCH.
func moment() time.Time {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "log", "-1", "--format=%ct").Output()
		check(err)
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	check(err)
	return time.Unix(seconds, 0).UTC()
}

func run(cmd *exec.Cmd) {
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	check(cmd.Run())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
