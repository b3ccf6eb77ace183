#include "launch/supervisor/hosts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <thread>

#include "launch/setting.h"
#include "launch/supervisor/process.h"
#include "launch/supervisor/words.h"
#include "runtime/error.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int kMostSlots = 1 << 20;  // of all hosts

/// N of "slots=N".
std::optional<int> slots_in(const std::string& word) {
  const std::string start = "slots=";
  int slots = 0;
  const char* end = word.data() + word.size();
  if (!word.starts_with(start)) return std::nullopt;
  const auto [stop, error] = std::from_chars(word.data() + start.size(), end, slots);
  return error == std::errc() && stop == end && slots > 0 ? std::optional(slots) : std::nullopt;
}

/// The host of one line without its comment; none on an empty line.
std::optional<Host> host_in(const std::string& line, const std::string& place) {
  const std::vector<std::string> words = words_of(line);
  if (words.empty()) return std::nullopt;
  const auto slots = words.size() == 2 ? slots_in(words[1]) : std::nullopt;
  require(slots.has_value(), fmt::format("{}: a line must be NAME slots=N with N at least 1, the ranks that "
                                         "the host may carry, not '{}'",
                                         place, fmt::join(words, " ")));
  return Host{words[0], *slots};
}

void add(std::vector<Host>& hosts, const Host& host) {
  const auto same = std::ranges::find(hosts, host.name, &Host::name);
  if (same == hosts.end())
    hosts.push_back(host);
  else
    same->slots += host.slots;
}

template <class T, auto Free>
struct Freed {
  void operator()(T* list) const { Free(list); }
};
using Addresses = std::unique_ptr<addrinfo, Freed<addrinfo, freeaddrinfo>>;
using Interfaces = std::unique_ptr<ifaddrs, Freed<ifaddrs, freeifaddrs>>;

Addresses addresses_of(const std::string& name) {
  addrinfo wanted{}, *found = nullptr;
  wanted.ai_socktype = SOCK_STREAM;
  return Addresses(getaddrinfo(name.c_str(), nullptr, &wanted, &found) == 0 ? found : nullptr);
}

Interfaces interfaces() {
  ifaddrs* found = nullptr;
  return Interfaces(getifaddrs(&found) == 0 ? found : nullptr);
}

/// "10.0.0.1"; nothing for what is not an address of the internet.
std::string numeric(const sockaddr* address) {
  if (address == nullptr || (address->sa_family != AF_INET && address->sa_family != AF_INET6)) return "";
  const socklen_t size = address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  std::array<char, NI_MAXHOST> text{};
  const int error = getnameinfo(address, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
  return error == 0 ? text.data() : "";
}

/// The agent's words before the name of the host.
std::vector<std::string> agent_words(const RemoteAgent& agent) {
  std::vector<std::string> words = words_of(agent.command);
  if (std::filesystem::path(words.front()).filename() == "ssh")
    for (const std::string& option :
         {std::string("BatchMode=yes"), fmt::format("ConnectTimeout={}", agent.limit.count())}) {
      words.emplace_back("-o");
      words.push_back(option);
    }
  return words;
}

struct Question {
  Host host;
  std::optional<Process> process;  ///< none for this machine

  bool is_open() { return process && !process->poll(); }
  bool is_answered() { return !process || process->poll() == 0; }
};

}  // namespace

std::vector<Host> read_hosts(const std::string& file) {
  std::error_code unknown;
  require(!std::filesystem::is_directory(file, unknown),
          fmt::format("--hosts {} is a folder: give a file of lines NAME slots=N", file));
  std::ifstream in(file);
  require(in.good(), fmt::format("--hosts {} cannot be read: {}", file, std::strerror(errno)));
  std::vector<Host> hosts;
  std::string line;
  std::int64_t slots = 0;
  for (int number = 1; std::getline(in, line); ++number) {
    const std::string place = fmt::format("{}, line {}", file, number);
    const auto host = host_in(line.substr(0, line.find('#')), place);
    if (!host) continue;
    slots += host->slots;
    require(slots <= kMostSlots, fmt::format("{}: the hosts have {} slots so far and at most {} are allowed: "
                                             "give each as many as it has cores",
                                             place, slots, kMostSlots));
    add(hosts, *host);
  }
  require(!hosts.empty(), fmt::format("--hosts {} names no host: give lines NAME slots=N", file));
  return hosts;
}

std::string hostfile_of(const std::vector<Host>& hosts) {
  std::string lines;
  for (const Host& host : hosts) lines += fmt::format("{} slots={}\n", host.name, host.slots);
  return lines;
}

int slots_of(const std::vector<Host>& hosts) {
  return std::accumulate(hosts.begin(), hosts.end(), 0,
                         [](int sum, const Host& host) { return sum + host.slots; });
}

std::vector<Host> answering(const std::vector<Host>& hosts, const RemoteAgent& agent,
                            const std::string& script) {
  const auto end = Clock::now() + agent.limit;
  std::vector<Question> questions;
  for (const Host& host : hosts) {
    Question& question = questions.emplace_back(Question{host, std::nullopt});
    if (is_this_machine(host.name)) continue;
    std::vector<std::string> words = agent_words(agent);
    words.insert(words.end(), {host.name, script});
    question.process.emplace(words, Process::Options{.environment = {}, .silent = true});
  }
  while (std::ranges::any_of(questions, &Question::is_open) && Clock::now() < end)
    std::this_thread::sleep_for(20ms);

  std::vector<Host> there;
  for (Question& question : questions)
    if (question.is_answered()) there.push_back(question.host);
  return there;
}

bool is_this_machine(const std::string& name) {
  if (name == "localhost" || name == host_name()) return true;
  const Addresses addresses = addresses_of(name);
  const Interfaces own_interfaces = interfaces();
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    const std::string wanted = numeric(address->ai_addr);
    for (const ifaddrs* card = own_interfaces.get(); card != nullptr; card = card->ifa_next)
      if (!wanted.empty() && numeric(card->ifa_addr) == wanted) return true;
  }
  return false;
}

}  // namespace lamina
