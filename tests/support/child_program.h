// The program itself as a child process that tests send signals to.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace eps::test {

class ChildProgram {
 public:
  struct Exit {
    int code = -1;  // 128 + the signal for one that was killed; -1: it did not end in time, and was killed
    double seconds = 0;
  };

  // Starts `arguments[0]`, its output going to the two files and its input coming from `input`. `prepare` runs in the
  // child before the program does.
  ChildProgram(const std::vector<std::string>& arguments, const std::string& out, const std::string& err,
               const std::string& input = "/dev/null", void (*prepare)() = nullptr) {
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    redirect(input, O_RDWR, 0);  // a FIFO opened for both does not wait for a writer
    redirect(out, O_WRONLY | O_CREAT | O_TRUNC, 1);
    redirect(err, O_WRONLY | O_CREAT | O_TRUNC, 2);
    if (prepare != nullptr) prepare();
    execv(argv[0], argv.data());
    _exit(99);
  }
  ~ChildProgram() {
    if (!is_over_) wait_at_most(0);
  }
  ChildProgram(const ChildProgram&) = delete;
  ChildProgram& operator=(const ChildProgram&) = delete;

  void send(int signal) const { kill(pid_, signal); }
  bool is_running() {
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
  }

  Exit wait_at_most(double seconds) {
    const auto begin = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    while (is_running() && elapsed() < seconds) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    Exit out;
    out.seconds = elapsed();
    const bool in_time = !is_running();
    if (!in_time) send(SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    is_over_ = true;
    if (in_time) out.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return out;
  }

 private:
  static void redirect(const std::string& path, int flags, int fd) {
    const int opened = open(path.c_str(), flags, 0600);
    if (opened < 0) _exit(98);
    if (opened == fd) return;
    dup2(opened, fd);
    close(opened);
  }

  pid_t pid_ = -1;
  bool is_over_ = false;
};

}  // namespace eps::test
