#include "statements.hpp"

#include <cctype>
#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <tuple>

namespace emulator {

std::string Where::text() const {
  auto place = [](const std::string& file, int line) {
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(line);
  };
  if (caller.empty()) return place(file, line);
  return place(caller, caller_line) + " (by way of " + place(file, line) + ")";
}

namespace {

// .loc and .file: which lines of which sources an instruction came from.
class Locations {
  using Place = std::tuple<int, int, int>;  // file, line, column
  std::map<int, std::string> files_;
  std::map<Place, Place> callers_;

 public:
  struct Mark {
    Place place, outermost;
    bool known = false;
  };

  void file(const std::string& line) {
    int number;
    char name[1000];
    if (std::sscanf(line.c_str(), ".file %d \"%999[^\"]", &number, name) == 2)
      files_[number] = name;
  }

  // An inlined place names its caller's, which may have been inlined itself: that was said before.
  Mark loc(const std::string& line) {
    int file, row, column, caller_file, caller_row, caller_column;
    char function[200];
    int read =
        std::sscanf(line.c_str(), ".loc %d %d %d, function_name %199[^,], inlined_at %d %d %d",
                    &file, &row, &column, function, &caller_file, &caller_row, &caller_column);
    Place place{file, row, column};
    callers_.erase(place);
    if (read == 7) callers_[place] = {caller_file, caller_row, caller_column};
    Place outermost = place;
    for (int depth = 0; depth < 50 && callers_.count(outermost); ++depth)
      outermost = callers_[outermost];
    return {place, outermost, read >= 3 && row > 0};
  }

  Where where(const Mark& mark) {
    Where where{files_[std::get<0>(mark.place)], std::get<1>(mark.place), {}, 0};
    if (mark.outermost == mark.place) return where;
    where.caller = files_[std::get<0>(mark.outermost)];
    where.caller_line = std::get<1>(mark.outermost);
    return where;
  }
};

std::string trimmed(const std::string& s) {
  size_t first = s.find_first_not_of(" \t\n\r"), last = s.find_last_not_of(" \t\n\r");
  return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

// Whether a line is this directive.
bool is(const std::string& line, const std::string& directive) {
  return line.starts_with(directive) && line.size() > directive.size() &&
         std::isspace(static_cast<unsigned char>(line[directive.size()]));
}

// Both kinds of comments become blanks; lines stay where they are.
std::string without_comments(std::string_view text) {
  std::string plain(text);
  for (size_t i = 0; i + 1 < plain.size(); ++i) {
    if (plain[i] != '/' || (plain[i + 1] != '/' && plain[i + 1] != '*')) continue;
    bool to_end_of_line = plain[i + 1] == '/';
    size_t end = to_end_of_line ? plain.find('\n', i) : plain.find("*/", i);
    end = end == std::string::npos ? plain.size() : end + (to_end_of_line ? 0 : 2);
    for (; i < end; ++i)
      if (plain[i] != '\n') plain[i] = ' ';
  }
  return plain;
}

}  // namespace

std::vector<std::string> split(std::string_view list, char separator) {
  std::vector<std::string> parts;
  std::string part;
  int depth = 0;
  for (char c : list) {
    depth += (c == '{' || c == '[' || c == '(') - (c == '}' || c == ']' || c == ')');
    if (c == separator && depth == 0)
      parts.push_back(part), part.clear();
    else if (!std::isspace(static_cast<unsigned char>(c)))
      part += c;
  }
  if (!part.empty() || !parts.empty()) parts.push_back(part);
  return parts;
}

Statements statements(std::string_view ptx, const std::string& file) {
  Statements result;
  Locations locations;
  std::vector<Locations::Mark> marks;  // of each statement; files are named at the end of the text
  Locations::Mark mark;
  std::string text;
  int scope = 0, begins = 0, depth = 0, number = 0;

  auto close = [&](Statement::Kind kind) {
    std::string whole = trimmed(text);
    text.clear();
    if (whole.empty()) return;
    if (kind == Statement::instruction && whole[0] == '.') kind = Statement::declaration;
    result.list.push_back({kind, whole, begins, scope, {file, begins, {}, 0}});
    marks.push_back(mark);
  };

  std::istringstream lines(without_comments(ptx));
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::string directive = trimmed(line);
    if (directive.starts_with(".section")) break;  // debugging information: it ends the text
    if (is(directive, ".file"))
      locations.file(directive);
    else if (is(directive, ".loc"))
      mark = locations.loc(directive);
    else if (directive.starts_with(".version") || directive.starts_with(".target") ||
             directive.starts_with(".address_size"))
      continue;
    else
      for (char c : line + "\n") {
        bool empty = text.find_first_not_of(" \t\n") == std::string::npos;
        if (empty) begins = number;
        bool opens =
            c == '{' && depth == 0 && (empty || (scope == 0 && text.find('=') == text.npos));
        if (opens) {
          result.parent.push_back(scope);
          scope = int(result.parent.size()) - 1;
          close(Statement::header);
          mark = {};
        } else if (c == '}' && depth == 0 && empty) {
          if (scope == 0) throw std::runtime_error(file + ": a brace too many");
          scope = result.parent[scope];
        } else if (c == ';' && depth == 0) {
          close(Statement::instruction);
        } else if (c == ':' && depth == 0 && !empty && text.find_first_of(".[%,") == text.npos) {
          close(Statement::label);
        } else {
          depth += (c == '{' || c == '(') - (c == '}' || c == ')');
          text += c;
        }
      }
  }
  // The file table follows the code.
  std::istringstream again{std::string(ptx)};
  for (std::string line; std::getline(again, line);)
    if (std::string directive = trimmed(line); is(directive, ".file")) locations.file(directive);
  for (size_t i = 0; i < marks.size(); ++i)
    if (marks[i].known) result.list[i].where = locations.where(marks[i]);
  return result;
}

}  // namespace emulator
